// The tab with durations per play task or per host, each with bars of its parts. A table whose last column is drawn: what a
// bar shows is there as text too.

import { h, replace, svg } from "../../dom.js";
import { duration, plural } from "../../format.js";
import { BAD_VERDICTS, stateBadge, stateRow, toneOf, VERDICTS, verdictBadge } from "../../states.js";

const WIDTH = 1000;
const HEIGHT = 14;
const SHOWN = 200;
const SHOWN_PARTS = 20;
const MOST_PIECES = 400;
const SLOWEST = ["slowest", "second slowest", "third slowest"];
const REDRAW_MILLISECONDS = 1000;

export class TimelineTab {
  constructor(run) {
    this.run = run;
    this.by = "task";
    this.open = new Set();
    this.shown = SHOWN;
    this.element = this.#build();
    run.addEventListener("events", () => (this.body.childElementCount ? this.#redrawSoon() : this.#draw()));
  }

  async show() {
    this.#draw();
    if (this.run.isFinal) await this.run.events.load();
    this.#draw();
  }

  #build() {
    const choice = (by, word) => h("button", { type: "button", "aria-pressed": String(by === this.by), onclick: () => this.#switch(by) }, word);
    this.choices = { task: choice("task", "By play task"), host: choice("host", "By host") };
    this.status = h("span", { class: "hint", role: "status" });
    this.body = h("tbody", {});
    this.axis = h("span", { class: "axis", "aria-hidden": "true" });
    this.name = h("th", { scope: "col", class: "name-column" });
    const head = h("tr", {}, this.name, h("th", { scope: "col", class: "number start-column" }, "Start"), h("th", { scope: "col", class: "number" }, "Took"), h("th", { scope: "col", class: "bar-column" }, h("span", { class: "visually-hidden" }, "Drawn"), this.axis));
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.#showAll() }, "Show all");
    const bar = h("div", { class: "row" }, h("div", { class: "row", role: "group", "aria-label": "Grouped" }, Object.values(this.choices)), this.status);
    return h("div", { class: "timeline" }, bar, h("table", {}, h("thead", {}, head), this.body), this.more);
  }

  #switch(by) {
    this.by = by;
    this.open.clear();
    this.shown = SHOWN;
    for (const [name, button] of Object.entries(this.choices)) button.setAttribute("aria-pressed", String(name === by));
    this.#draw();
  }

  #showAll() {
    this.shown = Infinity;
    this.#draw();
  }

  #redrawSoon() {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.#draw();
    }, REDRAW_MILLISECONDS);
  }

  #draw() {
    if (!this.element.isConnected || this.element.closest("[hidden]") || this.run.signal.aborted) return;
    const groups = this.by === "task" ? this.#playTasks() : this.#hosts();
    this.from = groups.reduce((least, group) => Math.min(least, group.from), Infinity);
    this.to = groups.reduce((most, group) => Math.max(most, group.to), this.from + 1);
    const slowest = [...groups].sort((a, b) => b.seconds - a.seconds).slice(0, groups.length > SLOWEST.length ? SLOWEST.length : 1);
    this.name.textContent = this.by === "task" ? "Play task" : "Host, slowest first";
    this.status.textContent = groups.length ? `${duration((this.to - this.from) / 1000)} in all` : "No durations yet";
    replace(this.axis, groups.length ? [0, 0.25, 0.5, 0.75, 1].map((part) => h("span", {}, part ? duration((part * (this.to - this.from)) / 1000) : "0")) : null);
    const focused = document.activeElement?.dataset?.group;
    replace(this.body, groups.slice(0, this.shown).map((group) => this.#rows(group, SLOWEST[slowest.indexOf(group)])));
    if (focused !== undefined) this.body.querySelector(`[data-group="${CSS.escape(focused)}"]`)?.focus();
    this.more.hidden = groups.length <= this.shown;
    this.more.textContent = `Show all ${groups.length.toLocaleString()}`;
  }

  #playTasks() {
    const { columns } = this.run.events;
    return columns.map((column, i) => {
      const from = Math.min(column.start ?? column.first, column.first ?? column.start);
      const to = this.#endOf(column, columns[i + 1]) ?? from;
      const play = column.play === columns[i - 1]?.play ? "" : column.play;
      const isLast = i === columns.length - 1;
      const { word, isCutOff } = stateRow(this.run.task.state);
      const how = column.results.length ? "" : isLast && !this.run.isFinal ? word.toLowerCase() : "no result";
      const about = [play, column.handler ? "handler" : "", how].filter(Boolean).join(" · ");
      const cutOff = isLast && isCutOff ? stateBadge(this.run.task) : null;
      return { key: `task-${column.index}`, name: column.task || column.module || "play task", about, cutOff, from, to, seconds: (to - from) / 1000, parts: column.results, partName: (one) => one.host };
    });
  }

  // Of the last play task there may be results to come: it lasts until now, or until the run was cut off. Others without a
  // result, as an include has none, end where the next one starts.
  #endOf(column, next) {
    const { task, isFinal } = this.run;
    if (next) return column.last ?? next.start ?? next.first;
    if (!isFinal) return Date.now();
    return stateRow(task.state).isCutOff ? Math.max(column.last ?? 0, Date.parse(task.finished_at)) : column.last;
  }

  #hosts() {
    const { hosts, columns } = this.run.events;
    const groups = [...hosts.values()].map(({ name, cells }) => {
      const parts = cells.flat();
      const seconds = parts.reduce((sum, one) => sum + one.seconds, 0);
      const from = parts.reduce((least, one) => Math.min(least, one.end - one.seconds * 1000), Infinity);
      const to = parts.reduce((most, one) => Math.max(most, one.end), 0);
      return { key: `host-${name}`, name, about: plural(parts.length, "result"), from, to, seconds, parts, partName: (one) => columns[one.column].task };
    });
    return groups.sort((a, b) => b.seconds - a.seconds);
  }

  #rows(group, rank) {
    const isOpen = this.open.has(group.key);
    const toggle = () => {
      if (isOpen) this.open.delete(group.key);
      else this.open.add(group.key);
      this.#draw();
    };
    const attributes = { type: "button", class: "quiet expand", "aria-expanded": String(isOpen), "data-group": group.key, onclick: toggle };
    const name = h("button", attributes, h("span", { "aria-hidden": "true" }, isOpen ? "▾ " : "▸ "), h("bdi", {}, group.name));
    const tag = rank ? h("span", { class: "tag" }, `◆ ${rank}`) : null;
    const bad = failures(group);
    const first = h("th", { scope: "row", class: "name-column" }, name, tag, bad, group.cutOff, group.about ? h("bdi", { class: "hint group-details" }, group.about) : null);
    const classes = `${rank ? "is-slow" : ""}${bad.length ? " has-failed" : ""}`;
    const row = h("tr", { class: classes }, first, this.#times(group.from, group.seconds), h("td", { class: "bar-column" }, this.#bar(group)));
    return [row, isOpen ? this.#parts(group) : null];
  }

  #parts(group) {
    const all = [...group.parts].sort((a, b) => b.seconds - a.seconds);
    const rows = all.slice(0, SHOWN_PARTS).map((one) => {
      const begin = one.end - one.seconds * 1000;
      const piece = this.#drawing([this.#piece(one)], `${group.partName(one)}: ${duration(one.seconds)}`);
      const name = h("th", { scope: "row", class: "name-column part" }, verdictBadge(one.verdict), " ", h("bdi", {}, group.partName(one)));
      return h("tr", { class: "part-row" }, name, this.#times(begin, one.seconds), h("td", { class: "bar-column" }, piece));
    });
    const rest = all.length - SHOWN_PARTS;
    if (rest > 0) rows.push(h("tr", { class: "part-row" }, h("td", { colspan: 4, class: "hint part" }, `… and ${rest.toLocaleString()} more, each ${duration(all[SHOWN_PARTS].seconds)} or less`)));
    return rows;
  }

  #times(from, seconds) {
    const start = h("td", { class: "number start-column" }, `+${duration((from - this.from) / 1000)}`);
    return [start, h("td", { class: "number" }, duration(seconds))];
  }

  // A play task is one bar; a host has a bar for each of its results, in the colour of its verdict.
  #bar(group) {
    const title = `${group.name}: ${duration(group.seconds)}`;
    const whole = this.#rect(group.from, group.to, this.by === "task" ? "bar-whole" : "bar-span");
    const pieces = this.by === "task" ? [] : group.parts.slice(0, MOST_PIECES).map((one) => this.#piece(one));
    return this.#drawing([whole, pieces], title);
  }

  #piece(one) {
    return this.#rect(one.end - one.seconds * 1000, one.end, `fill ${toneOf(VERDICTS[one.verdict])}`);
  }

  #rect(from, to, classes) {
    const scale = WIDTH / (this.to - this.from);
    const width = Math.max(2, (to - from) * scale);
    const x = Math.min((from - this.from) * scale, WIDTH - width);
    return svg("rect", { class: classes, x: x.toFixed(2), y: 0, width: width.toFixed(2), height: HEIGHT });
  }

  #drawing(pieces, title) {
    return svg("svg", { class: "timebar", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, svg("title", {}, title), pieces);
  }
}

// How many of its parts have failed, by verdict.
function failures(group) {
  const counts = BAD_VERDICTS.map((verdict) => [verdict, group.parts.filter((one) => one.verdict === verdict).length]);
  return counts.filter(([, count]) => count).map(([verdict, count]) => verdictBadge(verdict, `${count.toLocaleString()} ${verdict}`));
}
