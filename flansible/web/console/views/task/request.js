// The tab with the request as it was sent, and the same as commands for a terminal.

import { copy, errorBox, h, replace } from "../../dom.js";
import { moment, plural, showInvisible } from "../../format.js";

export class RequestTab {
  constructor(run) {
    this.run = run;
    this.element = h("div", { class: "request" });
  }

  async show() {
    if (this.isShown) return;
    this.element.setAttribute("aria-busy", "true");
    try {
      const request = await this.run.request();
      replace(this.element, this.#facts(request), this.#body(request), this.#commands(request));
      this.isShown = true;
    } catch (error) {
      if (!this.run.signal.aborted) replace(this.element, errorBox(error));
    }
    this.element.removeAttribute("aria-busy");
  }

  #facts(request) {
    const { task } = this.run;
    const copyId = h("button", { type: "button", class: "quiet", onclick: () => copy(request.task_id, "The task id") }, "Copy");
    const facts = [
      ["Task id", [h("code", {}, request.task_id), copyId]],
      ["Kind", request.kind],
      ["Sent to", h("code", {}, `POST ${request.path}`)],
      ["Sent by", h("bdi", {}, task.user)],
      ["Sent", moment(task.submitted_at)],
      ["Started", task.started_at ? moment(task.started_at) : null],
      ["Ended", task.finished_at ? moment(task.finished_at) : null],
    ].filter(([, value]) => value !== null);
    return h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }

  #body(request) {
    const { masked } = request;
    const words = masked.length ? [`${plural(masked.length, "value")} kept secret and not stored: `, masked.map((field, i) => [i ? ", " : "", h("code", {}, field)])] : null;
    return this.#part("As it was sent", JSON.stringify(request.body, null, 2), "Copy as JSON", "The request", words ? h("p", { class: "hint" }, words) : null);
  }

  #commands(request) {
    const parts = [
      ["With curl", request.curl, "Copy as curl", "The curl command"],
      ["With the client", request.flansible, "Copy as flansible command", "The flansible command"],
      ["What Flansible ran", request.command, "Copy as ansible command", "The command"],
    ];
    return parts.filter(([, text]) => text).map(([title, text, button, what]) => this.#part(title, text, button, what));
  }

  #part(title, text, button, what, hint = null) {
    const bar = h("div", { class: "row part-head" }, h("h3", {}, title), h("button", { type: "button", onclick: () => copy(text, what) }, button));
    return h("section", { "aria-label": title }, bar, hint, h("pre", { class: "terminal request-text", tabindex: 0, "aria-label": title }, showInvisible(text)));
  }
}
