// Search over finished tasks: by playbook, host and message of a failure, or by a line of output.

import { get } from "../../api.js";
import { errorBox, h, newId, replace } from "../../dom.js";
import { moment, plural, showInvisible } from "../../format.js";
import { setParams } from "../../router.js";
import { stateBadge } from "../../states.js";

const PLACES = { records: "Playbooks, hosts, failures", output: "Output" };
const WANTED = 20;

export async function show(root, route) {
  const search = new Search(route);
  replace(root, search.elements);
  await search.run();
}

class Search {
  constructor({ params, signal }) {
    this.signal = signal;
    this.running = new AbortController();
    this.nextBefore = null;
    this.count = 0;
    this.input = h("input", { id: newId("search"), type: "search", name: "q", maxlength: 300, value: params.get("q") ?? "", autocomplete: "off" });
    const place = params.get("in") in PLACES ? params.get("in") : "records";
    const options = Object.entries(PLACES).map(([name, word]) => h("option", { value: name, selected: name === place }, word));
    this.place = h("select", { id: newId("place"), onchange: () => this.submit() }, options);
    this.hits = h("ol", { class: "hits" });
    this.status = h("p", { class: "hint", role: "status" });
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.load() }, "More");
    this.elements = [h("h1", {}, "Search"), this.#form(), this.status, this.hits, this.more];
  }

  #form() {
    const submit = (event) => {
      event.preventDefault();
      this.submit();
    };
    return h(
      "form",
      { class: "panel search-form", role: "search", onsubmit: submit },
      h("div", { class: "field search-words" }, h("label", { for: this.input.id }, "Words"), this.input),
      h("div", { class: "field" }, h("label", { for: this.place.id }, "In"), this.place),
      h("button", { type: "submit", class: "primary" }, "Search"),
      h("p", { class: "hint" }, "Finished tasks that have all of these words. A task can be found half a minute after its end."),
    );
  }

  submit() {
    setParams({ q: this.input.value.trim(), in: this.place.value === "records" ? null : this.place.value }, true);
    this.run();
  }

  /** Searches anew. */
  async run() {
    this.running.abort();
    this.running = new AbortController();
    this.nextBefore = null;
    this.count = 0;
    this.more.hidden = true;
    replace(this.hits);
    replace(this.status);
    if (this.input.value.trim()) await this.load();
    else this.input.focus();
  }

  /** Requests pages until there are some more hits, or none are left: a page may be short. */
  async load() {
    const signal = AbortSignal.any([this.running.signal, this.signal]);
    const query = { q: this.input.value.trim(), in: this.place.value };
    const until = this.count + WANTED;
    this.more.hidden = true;
    replace(this.status, "Searching …");
    try {
      do {
        const page = await get("api/search", { ...query, limit: until - this.count, before: this.nextBefore }, signal);
        this.hits.append(...page.hits.map(hitRow));
        this.count += page.hits.length;
        this.nextBefore = page.next_before;
      } while (this.nextBefore !== null && this.count < until);
    } catch (error) {
      if (!signal.aborted && error.status !== 401) replace(this.status, errorBox(error));
      return;
    }
    this.more.hidden = this.nextBefore === null;
    const found = this.count ? plural(this.count, "hit") : "No finished task has all of these words.";
    replace(this.status, found, this.nextBefore === null ? "" : ", older ones follow");
  }
}

function hitRow({ task, places }) {
  const address = `#/tasks/${encodeURIComponent(task.task_id)}`;
  return h(
    "li",
    { class: "panel hit", "data-task": task.task_id },
    h(
      "div",
      { class: "row" },
      stateBadge(task),
      h("a", { href: address }, task.playbook || task.module || task.kind),
      h("span", { class: "hint" }, task.user, " · ", moment(task.started_at ?? task.submitted_at)),
    ),
    places.map((place) => placeRow(address, place)),
  );
}

function placeRow(address, { field, text, host, line, seq }) {
  if (field === "output") return found(h("a", { href: `${address}?tab=output&line=${line}` }, `Line ${line}`), h("code", {}, showInvisible(text)));
  if (field === "message") {
    const href = `${address}?${new URLSearchParams({ tab: "hosts", host, seq })}`;
    return found(["Failure on ", h("a", { href }, host)], h("code", {}, showInvisible(text)));
  }
  return found(field === "host" ? "Host" : "Playbook", h("code", {}, showInvisible(text)));
}

function found(where, what) {
  return h("p", { class: "place" }, where, ": ", what);
}
