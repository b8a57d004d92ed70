// The tab with hosts × play tasks. Only visible cells are elements, so a thousand hosts are as fast as ten.
//
// The grid has the keyboard focus; aria-activedescendant names the active cell, as cells come and go while scrolling.

import { h, replace } from "../../dom.js";
import { duration, plural } from "../../format.js";
import { setParams } from "../../router.js";
import { ScrollHold } from "../../scroll_hold.js";
import { icon, isBad, toneOf, VERDICTS, verdictBadge } from "../../states.js";
import { CellPanel } from "./cell.js";
import { verdictOf } from "./events.js";
import { Measures } from "./measures.js";

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-10, 0], PageDown: [10, 0] };
const SCROLLBAR = 18;
const order = new Intl.Collator(undefined, { numeric: true });

export class HostsTab {
  constructor(run) {
    this.run = run;
    this.rows = [];
    this.drawn = new Map();
    this.active = { row: 0, column: 0 };
    this.text = "";
    this.onlyFailures = false;
    this.panel = new CellPanel(run, { onClose: () => this.#onClose(), onOther: (seq) => this.#open(seq) });
    this.measures = new Measures();
    this.element = this.#build();
    // A phone shows the first few columns only: the first failure stays in view.
    this.hold = new ScrollHold(this.grid, () => this.#revealFailure(), this.grid, run.signal);
    run.addEventListener("events", () => this.#onChange());
    new ResizeObserver(() => this.#draw()).observe(this.grid);
  }

  async show(params) {
    this.onlyFailures = params.get("only") === "failures";
    this.checkbox.checked = this.onlyFailures;
    if (params.get("seq")) this.#open(Number(params.get("seq")), params.get("host"));
    this.#onChange();
    if (this.run.events.isComplete || !this.run.isFinal) return;
    await this.run.events.load();
  }

  #build() {
    const typed = (event) => this.#filter({ text: event.target.value.toLowerCase() });
    const ticked = (event) => {
      setParams({ only: event.target.checked ? "failures" : null });
      this.#filter({ onlyFailures: event.target.checked });
    };
    this.checkbox = h("input", { type: "checkbox", onchange: ticked });
    this.status = h("span", { class: "hint", role: "status" });
    const field = h("input", { type: "search", placeholder: "Hosts with …", "aria-label": "Only hosts with this text", oninput: typed });
    const only = h("label", { class: "row only-failures" }, this.checkbox, "Only failures");
    const key = Object.keys(VERDICTS).map((verdict) => verdictBadge(verdict));
    this.sizer = h("div", { class: "grid-sizer", role: "presentation" });
    this.grid = h("div", { class: "grid scroll", role: "grid", tabindex: 0, "aria-label": "Results by host and play task", onscroll: () => this.#redrawSoon(), onkeydown: (event) => this.#onKey(event), onclick: (event) => this.#onClick(event) }, this.sizer);
    const main = h("div", { class: "hosts-main" }, this.grid, h("div", { class: "row legend", "aria-hidden": "true" }, key));
    return h("div", { class: "hosts" }, h("div", { class: "row hosts-bar" }, field, only, this.status), h("div", { class: "hosts-body" }, main, this.panel.element));
  }

  #filter(changes) {
    Object.assign(this, changes);
    this.grid.scrollTop = 0;
    this.active.row = 0;
    this.#onChange();
  }

  // Hosts with failures first, then by name; web10 comes after web9.
  #onChange() {
    const { hosts, columns, isComplete } = this.run.events;
    const fits = (host) => (!this.onlyFailures || host.bad) && host.name.toLowerCase().includes(this.text);
    this.rows = [...hosts.values()].filter(fits).sort((a, b) => (b.bad > 0) - (a.bad > 0) || order.compare(a.name, b.name));
    const shown = `${plural(this.rows.length, "host")} × ${plural(columns.length, "play task")}`;
    this.status.textContent = hosts.size || isComplete ? shown : "No results yet";
    this.grid.setAttribute("aria-rowcount", this.rows.length + 1);
    this.grid.setAttribute("aria-colcount", columns.length + 1);
    this.#redraw();
  }

  // Of the host that was the first to be on top: a run that goes on puts others above it.
  #revealFailure() {
    const row = Math.max(0, this.rows.findIndex(({ name, bad }) => bad && name === this.heldHost));
    const host = this.rows[row];
    if (!host?.bad) return;
    this.heldHost = host.name;
    this.measures.reveal(this.grid, { row, column: host.cells.findIndex((cell) => cell && isBad(verdictOf(cell))) });
  }

  #redrawSoon() {
    this.frame ??= requestAnimationFrame(() => this.#draw());
  }

  // ---- drawing

  #draw() {
    this.frame = null;
    const { clientWidth: width, clientHeight: height, scrollLeft, scrollTop } = this.grid;
    if (this.run.signal.aborted) return;
    if (!width) {
      this.hold.update();
      return;
    }
    const { columns } = this.run.events;
    const sizes = this.measures.fit(width, columns.length, columns.reduce((most, { task }) => Math.max(most, task.length), 0));
    this.sizer.style.width = `${sizes.first + columns.length * sizes.column}px`;
    this.sizer.style.height = `${sizes.head + this.rows.length * sizes.row}px`;
    this.grid.style.height = `${sizes.head + this.rows.length * sizes.row + SCROLLBAR}px`;
    this.grid.style.setProperty("--first", `${sizes.first}px`);
    this.grid.classList.toggle("is-dense", sizes.isDense);
    this.grid.classList.toggle("is-upright", sizes.isUpright);
    this.span = this.measures.visibleRange(scrollLeft, scrollTop, width, height, columns.length, this.rows.length);
    this.#drawRows(`${this.span.left}-${this.span.right} ${sizes.column} ${sizes.head}`);
    const cell = document.getElementById(this.#idOf(this.active));
    if (cell) this.grid.setAttribute("aria-activedescendant", cell.id);
    else this.grid.removeAttribute("aria-activedescendant");
    this.hold.update();
  }

  // Rows that stay visible are reused, unless their content has changed.
  #drawRows(columns) {
    const before = this.isStale || this.drawnColumns !== columns ? new Map() : this.drawn;
    if (!before.size) this.top = this.#drawHead();
    this.drawn = new Map();
    for (let row = this.span.top; row < this.span.bottom; row++) {
      this.drawn.set(row, before.get(row) ?? this.#drawRow(this.rows[row], row));
    }
    this.isStale = false;
    this.drawnColumns = columns;
    for (const [row, element] of before) if (!this.drawn.has(row)) element.remove();
    if (!before.size) replace(this.sizer, this.top);
    this.sizer.append(...[...this.drawn.values()].filter((element) => !element.isConnected));
  }

  #redraw() {
    this.isStale = true;
    this.#draw();
  }

  #drawHead() {
    const { sizes } = this.measures;
    const shown = this.run.events.columns.slice(this.span.left, this.span.right);
    const cells = shown.map((column, i) => {
      const before = this.run.events.columns[column.index - 1];
      const isNewPlay = before && before.play !== column.play;
      const title = `${column.play}: ${column.task}${column.handler ? " (handler)" : ""}`;
      const attributes = { role: "columnheader", class: `grid-head${isNewPlay ? " is-new-play" : ""}`, title, "aria-colindex": column.index + 2 };
      const name = h("bdi", { class: "grid-name" }, column.task || column.module || "play task");
      const isFirst = i === 0 || isNewPlay;
      const play = isFirst && !sizes.isDense ? h("bdi", { class: "grid-play" }, column.play) : null;
      return placed(h("div", attributes, play, name), this.measures.x(column.index), sizes.column, sizes.head);
    });
    const corner = h("div", { role: "columnheader", class: "grid-corner", "aria-colindex": 1 }, "Host");
    const row = h("div", { role: "row", class: "grid-row grid-top", "aria-rowindex": 1 }, corner, cells);
    row.style.height = `${sizes.head}px`;
    return row;
  }

  #drawRow(host, index) {
    const { sizes } = this.measures;
    const name = h("div", { role: "rowheader", class: "grid-host", title: host.name, "aria-colindex": 1 }, host.bad ? icon(VERDICTS.failed) : null, h("bdi", {}, host.name));
    const cells = [];
    for (let column = this.span.left; column < this.span.right; column++) {
      cells.push(placed(this.#drawCell(host, index, column), this.measures.x(column), sizes.column, sizes.row));
    }
    const row = h("div", { role: "row", class: `grid-row${host.bad ? " has-failed" : ""}`, "aria-rowindex": index + 2 }, name, cells);
    row.style.top = `${sizes.head + index * sizes.row}px`;
    row.style.height = `${sizes.row}px`;
    return row;
  }

  #drawCell(host, row, column) {
    const results = host.cells[column];
    const isActive = this.active.row === row && this.active.column === column;
    const place = { id: this.#idOf({ row, column }), role: "gridcell", "aria-colindex": column + 2 };
    const classes = `grid-cell${isActive ? " is-active" : ""}`;
    if (!results) return h("div", { ...place, class: classes, "aria-label": "no result" });
    const verdict = verdictOf(results);
    const seconds = results.reduce((sum, one) => sum + one.seconds, 0);
    const times = results.length > 1 ? `, ${results.length} results` : "";
    const name = `${host.name}, ${this.run.events.columns[column].task}: ${verdict}, ${duration(seconds)}${times}`;
    const isOpen = results.some((one) => one.seq === this.panel.seq);
    const button = { ...place, type: "button", tabindex: -1, "aria-label": name, title: name, "data-row": row, "data-column": column };
    const word = this.measures.sizes.isDense ? null : h("span", {}, verdict);
    const count = results.length > 1 ? h("sup", {}, results.length) : null;
    return h("button", { ...button, class: `${classes} ${toneOf(VERDICTS[verdict])}${isBad(verdict) ? " is-bad" : ""}${isOpen ? " is-open" : ""}` }, icon(VERDICTS[verdict]), word, count);
  }

  #idOf({ row, column }) {
    return `cell-${row}-${column}`;
  }

  // ---- use

  #onClick(event) {
    const button = event.target.closest("button[data-row]");
    if (!button) return;
    this.active = { row: Number(button.dataset.row), column: Number(button.dataset.column) };
    this.#openActive();
  }

  #onKey(event) {
    if (event.altKey || event.metaKey) return;
    const most = { row: this.rows.length - 1, column: this.run.events.columns.length - 1 };
    if (event.key === "Enter" || event.key === " ") {
      this.#openActive();
    } else if (event.key === "Home" || event.key === "End") {
      this.#activate(event.ctrlKey ? (event.key === "Home" ? 0 : most.row) : this.active.row, event.key === "Home" ? 0 : most.column);
    } else if (event.key in STEPS) {
      const [down, right] = STEPS[event.key];
      this.#activate(Math.min(most.row, this.active.row + down), Math.min(most.column, this.active.column + right));
    } else if (event.key === "Escape" && this.panel.seq !== null) {
      this.panel.close();
    } else {
      return;
    }
    event.preventDefault();
  }

  #activate(row, column) {
    this.active = { row: Math.max(0, row), column: Math.max(0, column) };
    this.measures.reveal(this.grid, this.active);
    this.#redraw();
  }

  #openActive() {
    const results = this.rows[this.active.row]?.cells[this.active.column];
    if (!results) return;
    const gravest = results.find((one) => one.verdict === verdictOf(results));
    this.#open(gravest.seq);
  }

  async #open(seq, host = null) {
    const results = this.#resultsWith(seq, host);
    setParams({ host: results[0]?.host ?? host, seq });
    const opened = this.panel.open(seq, results);
    this.#redraw();
    await opened;
  }

  #resultsWith(seq, host) {
    const rows = host ? [this.run.events.hosts.get(host)].filter(Boolean) : this.rows;
    for (const row of rows) {
      const found = row.cells.find((cell) => cell?.some((one) => one.seq === seq));
      if (found) return found;
    }
    return [];
  }

  #onClose() {
    setParams({ host: null, seq: null });
    this.#redraw();
    this.grid.focus({ preventScroll: true });
  }
}

function placed(element, x, width, height) {
  element.style.left = `${x}px`;
  element.style.width = `${width}px`;
  element.style.height = `${height}px`;
  return element;
}

