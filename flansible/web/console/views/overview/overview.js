// The overview: what runs now, the runs of the last days, the slowest playbooks and the hosts that fail most.

import { get, pause, session } from "../../api.js";
import { meter } from "../../charts.js";
import { errorBox, h, newId, replace } from "../../dom.js";
import { duration, plural } from "../../format.js";
import { setParams } from "../../router.js";
import { failures, legend, notStopped, percent, rateFigure, runsFigure, total } from "./days.js";

const REFRESH_SECONDS = 5;
const PERIODS = [7, 30, 90];

export async function show(root, route) {
  const overview = new Overview(route);
  replace(root, overview.elements);
  await overview.refresh();
  await overview.poll();
}

class Overview {
  constructor({ params, signal }) {
    this.signal = signal;
    this.days = PERIODS.includes(Number(params.get("days"))) ? Number(params.get("days")) : 30;
    this.shown = new Map();
    this.runs = runsFigure(signal);
    this.rate = rateFigure(signal);
    this.nowCards = h("div", { class: "cards" });
    this.workers = h("div", {});
    this.legend = h("ul", { class: "legend" });
    this.playbooks = h("div", { class: "scroll" });
    this.hosts = h("div", { class: "scroll" });
    this.scope = h("span", { class: "hint" });
    this.errorSlot = h("div", {});
    this.elements = [
      h("div", { class: "row title" }, h("h1", {}, "Overview"), this.scope, this.period()),
      this.errorSlot,
      this.nowCards,
      h("div", { class: "columns" },
        panel("Runs per day", this.legend, this.runs.element),
        h("div", {}, panel("Workers", this.workers), panel("Failure rate", this.rate.element)),
      ),
      h("div", { class: "columns" }, panel("Slowest playbooks", this.playbooks), panel("Hosts that fail most", this.hosts)),
    ];
  }

  period() {
    const id = newId("period");
    const change = (event) => {
      this.days = Number(event.target.value);
      setParams({ days: this.days === 30 ? null : this.days }, true);
      this.refresh();
    };
    const options = PERIODS.map((days) => h("option", { value: days, selected: days === this.days }, `${days} days`));
    const select = h("select", { id, onchange: change }, options);
    return h("div", { class: "row period" }, h("label", { for: id }, "Last"), select);
  }

  async poll() {
    while (!this.signal.aborted) {
      await pause(REFRESH_SECONDS, this.signal);
      if (!document.hidden && !this.signal.aborted) await this.refresh();
    }
  }

  async refresh() {
    const days = this.days;
    try {
      const stats = await get("api/stats", { days }, this.signal);
      if (days !== this.days) return;
      replace(this.errorSlot);
      this.show(stats);
    } catch (error) {
      if (!this.signal.aborted && error.status !== 401) replace(this.errorSlot, errorBox(error));
    }
  }

  show(stats) {
    replace(this.scope, stats.everybody ? "Tasks of all users" : "Your tasks");
    this.replaceIfChanged(this.nowCards, [stats.queued, stats.running, stats.workers, stats.days], () => cards(stats));
    this.replaceIfChanged(this.workers, stats.workers, () => workerRows(stats.workers));
    this.replaceIfChanged(this.playbooks, stats.playbooks, () => playbookTable(stats.playbooks));
    this.replaceIfChanged(this.hosts, stats.hosts, () => hostTable(stats.hosts));
    this.replaceIfChanged(this.legend, stats.days, () => legend(stats.days));
    if (this.hasChanged(this.runs, stats.days)) {
      this.runs.show(stats.days);
      this.rate.show(stats.days);
    }
  }

  /** Whether the value differs from the last call with this key: unchanged parts are not redrawn and keep the focus. */
  hasChanged(key, value) {
    const text = JSON.stringify(value);
    const isOther = this.shown.get(key) !== text;
    this.shown.set(key, text);
    return isOther;
  }

  replaceIfChanged(place, value, build) {
    if (!this.hasChanged(place, value)) return;
    const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    replace(place, build());
    if (focused) [...place.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
  }
}

function panel(title, ...children) {
  const id = newId("panel");
  return h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id }, title), children);
}

// Now

function cards({ queued, running, workers, days }) {
  const slots = workers.reduce((sum, worker) => sum + worker.slots, 0);
  const ended = days.reduce((sum, day) => sum + notStopped(day), 0);
  const bad = days.reduce((sum, day) => sum + failures(day), 0);
  const all = days.reduce((sum, day) => sum + total(day), 0);
  const ofAll = `${formatCount(bad)} of ${formatCount(ended)} not canceled`;
  return [
    card("Running now", running, slots ? `of ${plural(slots, "slot")}` : "no worker is running", "#/tasks?state=running"),
    card("Queued now", queued, queued ? "waiting for a worker" : "nothing is queued", "#/tasks?state=queued"),
    card("Runs", all, `ended in ${plural(days.length, "day")}`, "#/tasks"),
    card("Went wrong", ended ? percent(bad / ended) : "–", ofAll, "#/tasks?state=failed"),
  ];
}

function card(title, value, about, href) {
  const shown = h("strong", {}, typeof value === "number" ? formatCount(value) : value);
  return h("a", { class: "panel card", href }, h("span", {}, title), shown, h("span", { class: "hint" }, about));
}

function formatCount(number) {
  return number.toLocaleString();
}

function workerRows(workers) {
  if (!workers.length) return h("p", { class: "error-box" }, "No worker is running. Tasks wait in the queue until one is started.");
  const rows = workers.map(({ name, slots, running }) => {
    const load = h("span", { class: "hint" }, `${running} of ${plural(slots, "slot")} in use`);
    return h("li", {}, h("span", { class: "name", title: name }, name), load, meter(running, slots, "tone-info"));
  });
  return h("ul", { class: "workers" }, rows);
}

// Rankings

function playbookTable(playbooks) {
  if (!playbooks.length) return emptyHint("No playbook has ended in this period.");
  const most = Math.max(...playbooks.map((one) => one.mean_seconds));
  const rows = playbooks.map((one) => [
    link("playbook", one.playbook),
    h("td", { class: "number" }, duration(one.mean_seconds)),
    h("td", { class: "meter-column" }, meter(one.mean_seconds, most, "tone-info")),
    h("td", { class: "number longest-column" }, duration(one.longest_seconds)),
    h("td", { class: "number" }, formatCount(one.runs)),
    h("td", { class: one.failed ? "number tone-danger" : "number" }, formatCount(one.failed)),
  ]);
  return ranking(["Playbook", "Mean", "", "Longest", "Runs", "Failed"], rows);
}

function hostTable(hosts) {
  if (!hosts.length) return emptyHint("No host has failed in this period.");
  const most = Math.max(...hosts.map((one) => one.failed));
  const rows = hosts.map((one) => [
    link("host", one.host),
    h("td", { class: "number" }, formatCount(one.failed)),
    h("td", { class: "meter-column" }, meter(one.failed, most, "tone-danger")),
  ]);
  return ranking(["Host", "Failed runs", ""], rows);
}

function link(filter, value) {
  return h("th", { scope: "row" }, h("a", { href: `#/tasks?${new URLSearchParams({ [filter]: value })}` }, value));
}

function ranking(heads, rows) {
  const classOf = (word, index) => (word === "Longest" ? "number longest-column" : index ? "number" : null);
  const head = (word, index) => h("th", { scope: "col", class: classOf(word, index) }, word);
  const top = heads.map((word, index) => (word ? head(word, index) : h("td", { "aria-hidden": "true" })));
  const body = rows.map((row) => h("tr", {}, row));
  return h("table", { class: "ranking" }, h("thead", {}, h("tr", {}, top)), h("tbody", {}, body));
}

function emptyHint(text) {
  return h("p", { class: "hint" }, text, " ", session.may_act ? h("a", { href: "#/launch" }, "Launch something") : null);
}
