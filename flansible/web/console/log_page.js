// A page with what was sent or received, newest first: filters in the address, older entries by a button.

import { get } from "./api.js";
import { errorBox, h, newId, replace } from "./dom.js";
import { setParams } from "./router.js";

/** title, path: of the page, and of its list in the API. kind: of the definitions it belongs to, [name in the API, word].
 * filters: name -> [word, choices]. heads: words of the columns. row(entry): its cells; it may call `load` to read anew. */
export class LogPage {
  constructor(root, params, signal, { title, path, kind: [kind, word], filters, heads, row }) {
    Object.assign(this, { signal, loading: new AbortController(), title, path, heads, row });
    this.filters = Object.fromEntries(Object.keys(filters).map((name) => [name, params.get(name) ?? ""]));
    this.list = h("div", {});
    const fields = Object.entries(filters).map(([name, [label, choices]]) => this.#filter(name, label, choices));
    const back = h("a", { href: `#/definitions?kind=${kind}` }, word);
    const reload = h("button", { type: "button", onclick: () => this.load() }, "Reload");
    replace(root, h("h1", {}, title), h("div", { class: "row log-filters" }, fields, reload, back), this.list);
  }

  async load(before = null, shown = []) {
    this.loading.abort();
    this.loading = new AbortController();
    const signal = AbortSignal.any([this.loading.signal, this.signal]);
    try {
      const page = await get(this.path, { ...this.filters, before }, signal);
      const items = [...shown, ...page.items];
      const more = page.next_before === null ? null : h("button", { type: "button", onclick: () => this.load(page.next_before, items) }, "More");
      replace(this.list, items.length ? this.#table(items) : h("div", { class: "panel" }, h("p", {}, "None yet.")), more);
    } catch (error) {
      if (!signal.aborted) replace(this.list, errorBox(error));
    }
  }

  #filter(name, word, choices) {
    const id = newId("log-filter");
    // What the address names may be gone by now.
    const values = [...new Set(["", ...choices, this.filters[name]])];
    const change = (event) => {
      this.filters[name] = event.target.value;
      setParams({ [name]: this.filters[name] });
      this.load();
    };
    const options = values.map((value) => h("option", { value, selected: value === this.filters[name] }, value || "any"));
    return h("div", { class: "row" }, h("label", { for: id }, word), h("select", { id, onchange: change }, options));
  }

  #table(items) {
    const words = this.heads.map((word) => h("th", { scope: "col" }, word));
    const rows = items.map((one) => h("tr", {}, this.row(one).map((cell) => h("td", {}, cell))));
    const table = h("table", { class: "log" }, h("thead", {}, h("tr", {}, words)), h("tbody", {}, rows));
    return h("div", { class: "panel scroll", role: "region", tabindex: 0, "aria-label": this.title }, table);
  }
}

/** The names of the definitions of a kind that the user sees, to choose from. */
export async function definitionNames(kind, signal) {
  const { items } = await get(`api/${kind}`, { limit: 1000 }, signal);
  return items.map(({ name }) => name);
}

/** A link to a task by the beginning of its id; null without one. */
export function shortTaskLink(id) {
  return id ? h("a", { href: `#/tasks/${id}` }, id.slice(0, 8)) : null;
}
