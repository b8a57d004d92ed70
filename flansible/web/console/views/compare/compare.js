// Two tasks side by side: what differs in their requests, and on each host.

import { get } from "../../api.js";
import { errorBox, h, newId, replace } from "../../dom.js";
import { duration, moment, plural } from "../../format.js";
import { setParams } from "../../router.js";
import { stateBadge, verdictBadge } from "../../states.js";

const PAGE = 100;
const OFFERED = 30;
const TASK_ID = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/;
const WORDS = { result: "only in one", verdict: "result", changed: "change", message: "message", duration: "duration" };

/** route.params: `task`, and `with`; without it the last success of the same. */
export async function show(root, { params, signal }) {
  const view = new Compare(signal);
  replace(root, view.elements);
  await view.load(params.get("task") ?? "", params.get("with") ?? "");
}

class Compare {
  constructor(signal) {
    Object.assign(this, { signal, loading: new AbortController() });
    this.content = h("div", {});
    this.hosts = h("div", {});
    this.counted = h("p", { class: "hint", role: "status" });
    this.moreButton = h("button", { type: "button", hidden: true, onclick: () => this.loadMore(AbortSignal.any([this.loading.signal, this.signal])) }, "Compare more hosts");
    this.offers = h("datalist", { id: newId("offers") });
    const field = (word, list) => {
      const input = h("input", { id: newId("compared"), type: "text", placeholder: "id or address of a task", list, autocomplete: "off", spellcheck: "false" });
      return { input, element: h("div", { class: "field" }, h("label", { for: input.id }, word), input) };
    };
    this.task = field("Task");
    this.other = field("Compared with", this.offers.id);
    const form = h("form", { class: "row compared" }, this.other.element, this.task.element, h("button", { type: "submit" }, "Compare"), this.offers);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.load(idIn(this.task.input.value), idIn(this.other.input.value));
    });
    this.elements = [h("h1", {}, "Compare two tasks"), form, this.content, this.hosts, this.counted, this.moreButton];
  }

  async load(task, other) {
    this.loading.abort();
    this.loading = new AbortController();
    this.query = { task, with: other };
    this.after = null;
    this.compared = this.differing = 0;
    this.task.input.value = task;
    this.other.input.value = other;
    setParams(this.query);
    replace(this.content);
    replace(this.hosts);
    replace(this.counted);
    this.moreButton.hidden = true;
    if (!task) return;
    const signal = AbortSignal.any([this.loading.signal, this.signal]);
    this.offer(task, signal);
    await this.loadMore(signal);
  }

  async loadMore(signal) {
    this.moreButton.hidden = true;
    let found;
    try {
      found = await get("api/compare", { ...this.query, limit: PAGE, after: this.after, if_any: this.query.with ? null : true }, signal);
    } catch (error) {
      if (signal.aborted) return;
      replace(this.content, errorBox(error));
      this.moreButton.hidden = this.after === null;
      return;
    }
    if (found === null) {
      replace(this.content, h("p", { class: "panel" }, "No earlier run of the same has succeeded. Choose another task to compare with."));
      return;
    }
    if (this.after === null) this.showTasks(found);
    this.query.with = this.other.input.value = found.other.task_id;
    setParams({ with: found.other.task_id });
    this.hosts.append(...found.hosts.map((host) => hostPanel(host, found)));
    this.after = found.next_after;
    this.moreButton.hidden = this.after === null;
    this.compared += found.compared_hosts;
    this.differing += found.hosts.length;
    replace(this.counted, this.differing ? `${this.differing.toLocaleString()} of ${plural(this.compared, "host")} differ` : `No difference on ${plural(this.compared, "host")}`, this.after === null ? "." : " so far.");
  }

  showTasks(found) {
    const { request, masked } = found;
    const rows = request.map((one) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, one.field)), h("td", {}, value(one.other_value)), h("td", {}, value(one.value))));
    const table = rows.length ? sides("Fields of the requests that differ", "Field", rows) : h("p", {}, "The requests are the same.");
    const hidden = masked.length ? h("p", { class: "hint" }, `Masked, and not compared: ${masked.join(", ")}`) : null;
    replace(
      this.content,
      h("div", { class: "two" }, taskPanel("Compared with", found.other), taskPanel("Task", found.task)),
      found.failures_between === null ? null : h("p", { class: "hint" }, found.failures_between ? `${plural(found.failures_between, "run")} of the same failed between them.` : "No run of the same between them has failed."),
      h("section", { class: "panel" }, h("h2", {}, "Request"), table, hidden),
      h("h2", {}, "Hosts"),
    );
  }

  /** Offers the latest tasks of the same playbook or kind. */
  async offer(task, signal) {
    try {
      const { playbook, kind } = await get(`api/ansibletaskstatus/${encodeURIComponent(task)}`, {}, signal);
      const { tasks } = await get("api/ansibletasks", { limit: OFFERED, ...(playbook ? { playbook } : { kind }) }, signal);
      const option = (one) => h("option", { value: one.task_id }, `${one.state}, ${new Date(one.submitted_at).toLocaleString()}: ${one.summary}`);
      replace(this.offers, tasks.filter((one) => one.task_id !== task).map(option));
    } catch {
      // What is wrong with the task is said by the comparison.
    }
  }
}

function idIn(text) {
  return TASK_ID.exec(text)?.[0] ?? text.trim();
}

function taskPanel(word, task) {
  const link = h("a", { href: `#/tasks/${encodeURIComponent(task.task_id)}` }, task.summary);
  return h("section", { class: "panel", "aria-label": word }, h("div", { class: "row" }, h("span", { class: "hint" }, word), stateBadge(task)), h("p", { class: "summary" }, link), h("p", { class: "hint" }, moment(task.submitted_at)));
}

function hostPanel(host, found) {
  const badge = (verdict) => (verdict === null ? h("span", { class: "hint" }, "no results") : verdictBadge(verdict));
  const head = h("div", { class: "row host-head" }, h("h3", {}, h("bdi", {}, host.host)), badge(host.other_verdict), h("span", { "aria-label": "then" }, "→"), badge(host.verdict));
  const rows = host.play_tasks.map((one) => {
    const words = one.differs.map((name) => WORDS[name] ?? name).join(", ");
    return h("tr", {}, h("th", { scope: "row" }, h("div", { class: "hint" }, one.play), h("bdi", {}, one.task || one.module), h("div", { class: "hint" }, words)), h("td", {}, outcome(one.other_result, found.other, host)), h("td", {}, outcome(one.result, found.task, host)));
  });
  const partial = host.is_partial ? h("p", { class: "hint" }, "It has more results than are compared.") : null;
  return h("section", { class: "panel" }, head, rows.length ? sides(`Play tasks that differ on ${host.host}`, "Play task", rows) : null, partial);
}

function outcome(result, task, host) {
  if (!result) return h("span", { class: "hint" }, "no result");
  const link = `#/tasks/${encodeURIComponent(task.task_id)}?${new URLSearchParams({ tab: "hosts", host: host.host })}`;
  const head = h("div", { class: "row" }, h("a", { href: link }, verdictBadge(result.verdict)), h("span", { class: "hint" }, duration(result.duration_seconds)));
  return [head, result.message ? h("pre", {}, result.message) : null];
}

function value(found) {
  return found === null ? h("span", { class: "hint" }, "not given") : h("pre", {}, typeof found === "string" ? found : JSON.stringify(found, null, 1));
}

function sides(label, first, rows) {
  const heads = [first, "Compared with", "Task"].map((word) => h("th", { scope: "col" }, word));
  return h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label }, h("table", { class: "sides" }, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows)));
}
