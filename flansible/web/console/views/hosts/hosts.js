// The hosts of the tasks that the user sees, by name, and how each fared last.

import { get } from "../../api.js";
import { errorBox, h, newId, replace } from "../../dom.js";
import { hostAddress, inventoryName, taskLink } from "../../known_hosts.js";
import { setParams } from "../../router.js";
import { VERDICTS, verdictBadge } from "../../states.js";

const PAGE = 100;
const MOST_PAGES = 20; // a search among very many hosts may give short pages: so many are read at once
const TYPING_MS = 300;
const FILTERS = ["name", "inventory", "group", "verdict", "stale_since"];
const AGES = [["", "Any time"], ["1d", "Not for a day"], ["7d", "Not for a week"], ["30d", "Not for 30 days"], ["90d", "Not for 90 days"]];

export async function show(root, route) {
  const list = new HostList(route);
  replace(root, list.elements);
  await list.load();
}

class HostList {
  constructor({ params, signal }) {
    this.signal = signal;
    this.filters = Object.fromEntries(FILTERS.map((name) => [name, params.get(name) ?? ""]));
    this.loading = new AbortController();
    this.after = null;
    this.rows = h("tbody", {});
    this.empty = h("p", { class: "panel", hidden: true }, "No host. A task counts here half a minute after its end.");
    this.errorSlot = h("div", {});
    this.moreButton = h("button", { type: "button", hidden: true, onclick: () => this.loadMore() }, "More hosts");
    const heads = ["Host", "Inventory", "Last task", "Last change", "Last failure"].map((word) => h("th", { scope: "col" }, word));
    const table = h("table", { class: "hosts" }, h("thead", {}, h("tr", {}, heads)), this.rows);
    this.table = h("div", { class: "panel scroll", role: "region", tabindex: 0, "aria-label": "Hosts by name" }, table);
    this.elements = [h("h1", {}, "Hosts"), this.form(), this.errorSlot, this.table, this.empty, this.moreButton];
  }

  form() {
    const verdicts = [["", "Any result"], ...Object.keys(VERDICTS).map((name) => [name, name])];
    const text = (name, word) => labelled(word, h("input", { type: "search", name, value: this.filters[name], autocomplete: "off", spellcheck: "false" }));
    const choice = (name, word, choices) => labelled(word, h("select", { name }, choices.map(([value, label]) => h("option", { value, selected: value === this.filters[name] }, label))));
    const fields = [text("name", "Name"), text("inventory", "Inventory"), text("group", "Group"), choice("verdict", "Last result", verdicts), choice("stale_since", "Touched", AGES)];
    const form = h("form", { class: "row host-filters", role: "search", "aria-label": "Filters" }, fields);
    const apply = () => this.apply(Object.fromEntries(new FormData(form)));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      apply();
    });
    form.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(apply, TYPING_MS);
    });
    this.signal.addEventListener("abort", () => clearTimeout(this.typing));
    return form;
  }

  apply(filters) {
    clearTimeout(this.typing);
    this.filters = filters;
    setParams(filters);
    this.load();
  }

  async load() {
    this.loading.abort();
    this.loading = new AbortController();
    this.after = null;
    await this.loadMore(true);
  }

  /** Reads until something is found; isFirst: what is shown is replaced. */
  async loadMore(isFirst = false) {
    const signal = AbortSignal.any([this.signal, this.loading.signal]);
    const found = [];
    try {
      for (let page = 0; page < MOST_PAGES && !found.length && (page === 0 || this.after); page++) {
        const reply = await get("api/hosts", { ...this.filters, limit: PAGE, after: this.after }, signal);
        found.push(...reply.hosts);
        this.after = reply.next_after;
      }
    } catch (error) {
      if (!signal.aborted) replace(this.errorSlot, errorBox(error));
      return;
    }
    replace(this.errorSlot);
    if (isFirst) replace(this.rows);
    this.rows.append(...found.map(row));
    this.table.hidden = !this.rows.childElementCount;
    this.empty.hidden = !this.table.hidden;
    this.moreButton.hidden = !this.after;
  }
}

function row(host) {
  const groups = host.groups?.length ? h("div", { class: "hint" }, host.groups.join(", ")) : null;
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, h("a", { href: hostAddress(host.name, host.inventory) }, h("bdi", {}, host.name)), groups),
    h("td", {}, inventoryName(host.inventory)),
    h("td", {}, taskLink(host.last_task, verdictBadge(host.verdict)), h("div", { class: "hint" }, host.last_task.user)),
    h("td", {}, taskLink(host.last_changed)),
    h("td", {}, taskLink(host.last_failed)),
  );
}

function labelled(word, input) {
  const id = newId("host-filter");
  input.id = id;
  return h("div", { class: "field" }, h("label", { for: id }, word), input);
}
