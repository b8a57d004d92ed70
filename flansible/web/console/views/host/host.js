// One host: how it fared last in each inventory that has it, each task that touched it, and its facts.

import { get } from "../../api.js";
import { errorBox, h, newId, replace } from "../../dom.js";
import { moment } from "../../format.js";
import { hostAddress, inventoryName, taskLink } from "../../known_hosts.js";
import { countsBar, stateBadge, verdictBadge } from "../../states.js";

const PAGE = 50;

export async function show(root, { id, params, signal }) {
  const host = new Host(id, params.get("inventory"), signal);
  await host.load();
  replace(root, host.elements);
}

class Host {
  constructor(name, inventory, signal) {
    Object.assign(this, { name, inventory, signal, before: null });
    this.path = `api/hosts/${encodeURIComponent(name)}`;
    // The parameter may be empty: Ansible's own inventory, which `get` would leave out.
    this.query = new URLSearchParams(inventory === null ? {} : { inventory });
    this.known = h("div", { class: "known" });
    this.rows = h("tbody", {});
    this.facts = h("div", {});
    this.errorSlot = h("div", {});
    this.moreButton = h("button", { type: "button", hidden: true, onclick: () => this.loadOlder() }, "Older tasks");
    const heads = ["On this host", "Task", "User", "Ended", "Results here"].map((word) => h("th", { scope: "col" }, word));
    const table = h("table", { class: "runs" }, h("thead", {}, h("tr", {}, heads)), this.rows);
    const region = h("div", { class: "panel scroll", role: "region", tabindex: 0, "aria-label": "Tasks with results of this host, newest first" }, table);
    this.elements = [h("h1", {}, h("bdi", {}, name)), this.known, this.facts, h("h2", {}, "Tasks"), this.errorSlot, region, this.moreButton];
  }

  async load() {
    const reply = await this.read();
    const all = this.inventory === null ? null : h("a", { href: `#/hosts/${encodeURIComponent(this.name)}` }, "This name in all inventories");
    replace(this.known, reply.hosts.map(card), all);
    if (reply.facts_gathered_at) replace(this.facts, this.factsPanel(reply.facts_gathered_at));
    this.append(reply);
  }

  async loadOlder() {
    try {
      this.append(await this.read());
      replace(this.errorSlot);
    } catch (error) {
      if (!this.signal.aborted) replace(this.errorSlot, errorBox(error));
    }
  }

  read() {
    const query = new URLSearchParams(this.query);
    query.set("limit", PAGE);
    if (this.before !== null) query.set("before", this.before);
    return get(`${this.path}?${query}`, {}, this.signal);
  }

  append(reply) {
    this.before = reply.next_before;
    this.moreButton.hidden = this.before === null;
    this.rows.append(...reply.tasks.map((task) => runRow(task, this.name)));
  }

  factsPanel(gatheredAt) {
    const place = h("div", {});
    const details = h("details", { class: "panel" }, h("summary", {}, h("h2", {}, "Facts"), " ", h("span", { class: "hint" }, "of "), moment(gatheredAt)), place);
    details.addEventListener("toggle", () => this.showFacts(place), { once: true });
    return details;
  }

  async showFacts(place) {
    try {
      const reply = await get(`${this.path}/facts?${this.query}`, {}, this.signal);
      replace(place, factsTable(reply));
    } catch (error) {
      if (!this.signal.aborted) replace(place, errorBox(error));
    }
  }
}

function card(host) {
  const facts = [
    ["Last task", taskLink(host.last_task, verdictBadge(host.verdict))],
    ["Last change", host.last_changed ? taskLink(host.last_changed) : "none known"],
    ["Last failure", host.last_failed ? taskLink(host.last_failed) : "none known"],
    ["Groups", host.groups === null ? "not known" : host.groups.join(", ") || "none"],
  ];
  const list = h("dl", { class: "host-facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  return h("section", { class: "panel" }, h("h2", {}, h("a", { href: hostAddress(host.name, host.inventory) }, inventoryName(host.inventory))), list);
}

function runRow(run, host) {
  const result = `#/tasks/${encodeURIComponent(run.task_id)}?${new URLSearchParams({ tab: "hosts", host })}`;
  const summary = run.summary.startsWith(`${run.user}: `) ? run.summary.slice(run.user.length + 2) : run.summary;
  return h(
    "tr",
    {},
    h("td", {}, verdictBadge(run.verdict)),
    h("th", { scope: "row" }, h("a", { href: result }, summary), h("div", { class: "hint" }, inventoryName(run.inventory))),
    h("td", {}, run.user),
    h("td", {}, run.finished_at ? moment(run.finished_at) : stateBadge(run)),
    h("td", { class: "results" }, countsBar(run.counts)),
  );
}

function factsTable(reply) {
  const id = newId("facts");
  const rows = Object.entries(reply.facts)
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([name, value]) => {
      const text = typeof value === "string" ? value : JSON.stringify(value, null, 1);
      const row = h("tr", {}, h("th", { scope: "row" }, h("code", {}, name)), h("td", {}, h("pre", {}, text)));
      return { row, words: `${name} ${text}`.toLowerCase() };
    });
  const filter = (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const { row, words } of rows) row.hidden = !words.includes(wanted);
  };
  const search = h("div", { class: "field" }, h("label", { for: id }, "Find in facts"), h("input", { id, type: "search", oninput: filter, autocomplete: "off" }));
  const source = h("p", { class: "hint" }, "Gathered by ", h("a", { href: `#/tasks/${encodeURIComponent(reply.task_id)}` }, "this task"), ` in ${inventoryName(reply.inventory)}.`);
  const table = h("table", { class: "facts" }, h("tbody", {}, rows.map(({ row }) => row)));
  return [source, search, h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": "Facts" }, table)];
}
