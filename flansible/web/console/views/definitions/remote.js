// The remote of a project: how the last look at it went, a button to look again, and the commits that workers have.

import { get, post } from "../../api.js";
import { errorBox, h, replace } from "../../dom.js";
import { moment } from "../../format.js";
import { commitAddress } from "../../forges.js";

export class ProjectRemote {
  /** project: its definition. */
  constructor(project, mayAsk, signal) {
    Object.assign(this, { project, signal });
    this.state = h("p", { role: "status" });
    this.fault = h("div", {});
    this.button = h("button", { type: "button", hidden: !mayAsk, onclick: () => this.ask() }, "Ask the remote now");
    this.element = h("section", { class: "panel", "aria-label": "Remote" }, h("h2", {}, "Remote"), this.state, this.fault, this.button, this.commits());
    this.load(() => get(this.path, {}, signal));
  }

  get path() {
    return `api/projects/${encodeURIComponent(this.project.name)}/remote`;
  }

  async ask() {
    this.button.disabled = true;
    await this.load(() => post(this.path, {}));
    this.button.disabled = false;
  }

  async load(request) {
    try {
      const found = await request();
      replace(this.fault);
      replace(this.state, this.words(found));
    } catch (error) {
      if (!this.signal.aborted && error.status !== 401) replace(this.fault, errorBox(error));
    }
  }

  words({ asked_at: asked, commit, ref, problem }) {
    if (!asked) return "It was not asked yet.";
    if (problem) return ["Asked ", moment(asked), ": ", h("span", { class: "tone-warning" }, problem)];
    return ["Asked ", moment(asked), `: ${ref} is `, this.link(commit)];
  }

  link(commit) {
    const address = commitAddress(this.project.url, commit);
    const short = h("code", {}, commit.slice(0, 12));
    return address ? h("a", { href: address, rel: "noreferrer" }, short) : short;
  }

  /** The commits whose trees workers have. */
  commits() {
    const found = this.project.commits ?? [];
    if (!found.length) return null;
    const head = ["Commit", "Worker", "", "Since", "Size"].map((word) => h("th", {}, word));
    const rows = found.map((one) => {
      const cells = [this.link(one.commit), one.worker, one.in_use ? "in use" : "at hand", moment(one.since), `${Math.ceil(one.bytes / 1024).toLocaleString()} KiB`];
      return h("tr", {}, cells.map((cell) => h("td", {}, cell)));
    });
    return h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": "Commits on workers" }, h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)));
  }
}
