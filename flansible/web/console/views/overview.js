// How the service is doing: now, in the last days, and where it hurts.

import { get, pause, session } from "../api.js";
import { figure, line, meter, stackedBars } from "../charts.js";
import { faultBox, h, newId, replace } from "../dom.js";
import { duration, plural, STATES } from "../format.js";
import { setParams } from "../main.js";

const REFRESH_SECONDS = 5;
const PERIODS = [7, 30, 90];
// From the ground up: what went well, what was stopped, what went wrong.
const STACK = ["succeeded", "canceled", "timed_out", "lost", "error", "failed"];
const WRONG = ["failed", "timed_out", "lost", "error"];

export async function show(root, route) {
  const overview = new Overview(route);
  replace(root, overview.elements);
  await overview.refresh();
  await overview.goOn();
}

class Overview {
  constructor({ params, signal }) {
    this.signal = signal;
    this.days = PERIODS.includes(Number(params.get("days"))) ? Number(params.get("days")) : 30;
    this.shown = new Map();
    this.runs = figure(drawRuns, tableOfRuns, signal);
    this.rate = figure(drawRate, tableOfRate, signal);
    this.now = h("div", { class: "cards" });
    this.workers = h("div", {});
    this.legend = h("ul", { class: "legend" });
    this.playbooks = h("div", { class: "scroll" });
    this.hosts = h("div", { class: "scroll" });
    this.whose = h("span", { class: "hint" });
    this.trouble = h("div", {});
    this.elements = [
      h("div", { class: "row title" }, h("h1", {}, "Overview"), this.whose, this.period()),
      this.trouble,
      this.now,
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
    return h("div", { class: "row period" }, h("label", { for: id }, "Last"), h("select", { id, onchange: change }, options));
  }

  async goOn() {
    while (!this.signal.aborted) {
      await pause(REFRESH_SECONDS, this.signal);
      if (!document.hidden && !this.signal.aborted) await this.refresh();
    }
  }

  async refresh() {
    const asked = this.days;
    try {
      const stats = await get("api/stats", { days: asked }, this.signal);
      if (asked !== this.days) return;
      replace(this.trouble);
      this.show(stats);
    } catch (error) {
      if (!this.signal.aborted && error.status !== 401) replace(this.trouble, faultBox(error));
    }
  }

  show(stats) {
    replace(this.whose, stats.everybody ? "Everybody's tasks" : "Your tasks");
    this.put(this.now, [stats.queued, stats.running, stats.workers, stats.days], () => cards(stats));
    this.put(this.workers, stats.workers, () => workerRows(stats.workers));
    this.put(this.playbooks, stats.playbooks, () => playbookTable(stats.playbooks));
    this.put(this.hosts, stats.hosts, () => hostTable(stats.hosts));
    this.put(this.legend, stats.days, () => legend(stats.days));
    if (this.isNew(this.runs, stats.days)) {
      this.runs.show(stats.days);
      this.rate.show(stats.days);
    }
  }

  /** Whether this is something else than what was there: what stays the same keeps focus and place. */
  isNew(key, value) {
    const text = JSON.stringify(value);
    const isOther = this.shown.get(key) !== text;
    this.shown.set(key, text);
    return isOther;
  }

  put(place, value, build) {
    if (!this.isNew(place, value)) return;
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
  const ended = days.reduce((sum, day) => sum + judged(day), 0);
  const bad = days.reduce((sum, day) => sum + wrong(day), 0);
  const all = days.reduce((sum, day) => sum + total(day), 0);
  return [
    card("Running now", running, slots ? `of ${plural(slots, "slot")}` : "no worker is there", "#/tasks?state=running"),
    card("Queued now", queued, queued ? "waiting for their turn" : "nothing waits", "#/tasks?state=queued"),
    card("Runs", all, `ended in ${plural(days.length, "day")}`, "#/tasks"),
    card("Went wrong", ended ? percent(bad / ended) : "–", `${bad.toLocaleString()} of ${ended.toLocaleString()} not canceled`, "#/tasks?state=failed"),
  ];
}

function card(title, value, about, href) {
  const shown = typeof value === "number" ? value.toLocaleString() : value;
  return h("a", { class: "panel card", href }, h("span", {}, title), h("strong", {}, shown), h("span", { class: "hint" }, about));
}

function workerRows(workers) {
  if (!workers.length) return h("p", { class: "fault" }, "No worker is there: what is launched waits in the queue.");
  const rows = workers.map(({ name, slots, running }) =>
    h("li", {}, h("span", { class: "name", title: name }, name), h("span", { class: "hint" }, `${running} of ${plural(slots, "slot")} in use`), meter(running, slots, "fill-busy")),
  );
  return h("ul", { class: "workers" }, rows);
}

// Days

function total(day) {
  return STACK.reduce((sum, state) => sum + day[state], 0);
}

function judged(day) {
  return total(day) - day.canceled;
}

function wrong(day) {
  return WRONG.reduce((sum, state) => sum + day[state], 0);
}

function percent(part) {
  return `${(100 * part).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`;
}

function dayName(day) {
  return new Date(`${day.day}T00:00:00Z`).toLocaleDateString([], { timeZone: "UTC", day: "numeric", month: "short" });
}

function inUse(days) {
  return STACK.filter((state) => state === "succeeded" || days.some((day) => day[state]));
}

function legend(days) {
  return inUse(days).map((state) => h("li", {}, h("span", { class: `swatch swatch-${state}` }), STATES[state]));
}

function words(day) {
  const parts = STACK.filter((state) => day[state]).map((state) => `${day[state]} ${STATES[state].toLowerCase()}`);
  return `${dayName(day)}: ${parts.join(", ") || "no runs"}`;
}

function drawRuns(width, days) {
  const all = days.reduce((sum, day) => sum + total(day), 0);
  const bad = days.reduce((sum, day) => sum + wrong(day), 0);
  return stackedBars(width, {
    title: `Runs per day in the last ${days.length} days`,
    description: `${plural(all, "run")} ended, ${bad} of them went wrong.`,
    labels: days.map(dayName),
    tips: days.map(words),
    parts: inUse(days).map((state) => ({ fill: `fill-state-${state}`, values: days.map((day) => day[state]) })),
    unit: "Runs that ended, by day (UTC)",
  });
}

function tableOfRuns(days) {
  const states = inUse(days);
  const newest = [...days].reverse();
  return { heads: ["Day", ...states.map((state) => STATES[state])], rows: newest.map((day) => [day.day, ...states.map((state) => day[state])]) };
}

function rates(days) {
  return days.map((day) => (judged(day) ? wrong(day) / judged(day) : null));
}

function drawRate(width, days) {
  const values = rates(days);
  const tell = (value) => `${Math.round(100 * value)} %`;
  const worst = Math.max(0, ...values.filter((value) => value !== null));
  return line(width, {
    title: `Failure rate per day in the last ${days.length} days`,
    description: `At most ${percent(worst)}. Days without a run have no point.`,
    labels: days.map(dayName),
    tips: days.map((day, index) => `${dayName(day)}: ${values[index] === null ? "no runs" : percent(values[index])}`),
    values,
    unit: "Went wrong, of runs not canceled",
    tell,
  });
}

function tableOfRate(days) {
  const rows = days.map((day, index) => [day.day, rates(days)[index] === null ? "–" : percent(rates(days)[index])]);
  return { heads: ["Day", "Went wrong"], rows: rows.reverse() };
}

// Where it hurts

function playbookTable(playbooks) {
  if (!playbooks.length) return nothingYet("No playbook has ended in these days.");
  const most = Math.max(...playbooks.map((one) => one.mean_seconds));
  const rows = playbooks.map((one) => [
    link("playbook", one.playbook),
    h("td", { class: "number" }, duration(one.mean_seconds)),
    h("td", { class: "wide" }, meter(one.mean_seconds, most, "fill-busy")),
    h("td", { class: "number" }, duration(one.longest_seconds)),
    h("td", { class: "number" }, one.runs.toLocaleString()),
    h("td", { class: one.failed ? "number verdict-failed" : "number" }, one.failed.toLocaleString()),
  ]);
  return ranking(["Playbook", "Mean", "", "Longest", "Runs", "Failed"], rows);
}

function hostTable(hosts) {
  if (!hosts.length) return nothingYet("No host has failed in these days.");
  const most = Math.max(...hosts.map((one) => one.failed));
  const rows = hosts.map((one) => [
    link("host", one.host),
    h("td", { class: "number" }, one.failed.toLocaleString()),
    h("td", { class: "wide" }, meter(one.failed, most, "fill-failed")),
  ]);
  return ranking(["Host", "Failed runs", ""], rows);
}

function link(filter, value) {
  return h("th", { scope: "row" }, h("a", { href: `#/tasks?${new URLSearchParams({ [filter]: value })}` }, value));
}

function ranking(heads, rows) {
  const head = heads.map((word, index) => (word ? h("th", { scope: "col", class: index ? "number" : null }, word) : h("td", { "aria-hidden": "true" })));
  return h("table", { class: "ranking" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows.map((row) => h("tr", {}, row))));
}

function nothingYet(text) {
  return h("p", { class: "hint" }, text, " ", session.may_act ? h("a", { href: "#/launch" }, "Launch something") : null);
}
