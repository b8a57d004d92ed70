// The tab with the output: a terminal that opens fast however long the output is, follows a run, and can be searched.

import { copy, errorBox, h, notify, replace } from "../../dom.js";
import { plural } from "../../format.js";
import { setParams } from "../../router.js";
import { Colours, drawRuns } from "./colours.js";
import { OutputFeed, fragment } from "./feed.js";
import { Lines, MOST_UNITS } from "./lines.js";
import { VirtualList } from "./virtual_list.js";
import { SearchBar } from "./search_bar.js";

const ROW_PIXELS = 20;
const COLOUR_MILLISECONDS = 60;
const NARROW_PIXELS = 700;
const MEBIBYTE = 1024 * 1024;

export class OutputTab {
  constructor(run) {
    this.run = run;
    this.feed = new OutputFeed(run, (isFirst) => (isFirst ? this.#onGrow() : this.#redrawSoon(true)));
    this.text = this.feed.text;
    this.lines = new Lines(this.text);
    this.colours = new Colours(this.text, (from, to) => fragment(run.id, from, to, run.signal), () => this.#redrawSoon());
    this.rows = new VirtualList({
      label: "Output",
      height: ROW_PIXELS,
      drawRow: (row) => this.#row(row),
      onMove: (isAtEnd) => this.#onScroll(isAtEnd),
      onDraw: (first, last) => this.#onDraw(first, last),
    });
    this.search = new SearchBar(this.text, {
      reveal: ({ line, start }) => this.#reveal(line, start),
      refresh: () => this.#redrawSoon(),
      topLine: () => this.#topLine(),
    });
    this.marked = null;
    this.isFollowing = false;
    this.isWrapped = window.innerWidth < NARROW_PIXELS;
    this.element = this.#build();
    new ResizeObserver(() => this.isWrapped && this.#wrap()).observe(this.rows.element);
  }

  /** Shows the tab. params may name lines, `line=10`, `line=10-20`, or bytes, `at=100-200`, to go to. */
  async show(params) {
    this.loading ??= this.#load(Boolean(params.get("line") || params.get("at"))).catch((error) => {
      this.loading = undefined;
      throw error;
    });
    await this.loading;
    this.#wrap();
    await this.#goTo(params);
    this.rows.moveTo(this.isFollowing ? Infinity : this.rows.top);
  }

  #build() {
    const button = (word, onclick, attributes = {}) => h("button", { type: "button", onclick, ...attributes }, word);
    this.followButton = button("Pause", () => this.#follow(!this.isFollowing), { hidden: true });
    this.wrapButton = button("Wrap", () => this.#toggleWrap(), { "aria-pressed": String(this.isWrapped) });
    this.endButton = button("Jump to the end", () => this.#toEnd(), { class: "to-end", hidden: true });
    this.lineField = h("input", { type: "number", min: 1, class: "line-field", "aria-label": "Go to line", placeholder: "Line", onchange: () => this.#goToTypedLine() });
    this.count = h("span", { class: "hint line-count" });
    this.notLoaded = h("div", { class: "row not-loaded", hidden: true });
    const download = h("a", { class: "button", href: `${this.feed.address}?format=txt`, download: `${this.run.id}.txt` }, "Download");
    const copyButton = button("Copy", () => this.#copy(), { title: "Copy the selected lines, or all" });
    const actions = h("div", { class: "row output-actions" }, this.count, this.lineField, this.followButton, this.wrapButton, copyButton, download);
    const bar = h("div", { class: "output-bar" }, this.search.element, actions);
    return h("div", { class: "output" }, bar, this.notLoaded, h("div", { class: "terminal" }, this.rows.element, this.endButton));
  }

  async #load(isLinked) {
    this.rows.element.setAttribute("aria-busy", "true");
    await this.feed.load();
    this.rows.element.removeAttribute("aria-busy");
    this.#onGrow();
    this.#updateNotLoaded();
    if (this.feed.isFinal) return this.run.refresh();
    this.#follow(!isLinked);
    this.feed.follow().then(
      () => this.#ended(),
      (error) => this.run.signal.aborted || this.element.prepend(errorBox(error)),
    );
    return undefined;
  }

  // However much text arrives, it is drawn once per frame.
  #redrawSoon(hasGrown = false) {
    this.hasGrown ||= hasGrown;
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (this.hasGrown) this.#onGrow(true);
      else this.rows.refresh();
      this.hasGrown = false;
    });
  }

  #onGrow(isSame = false) {
    this.lines.grow();
    const digits = String(this.text.lines).length;
    this.rows.element.style.setProperty("--digits", Math.max(3, digits));
    this.rows.sizer.style.minWidth = this.isWrapped ? "" : `${Math.min(this.text.longest, MOST_UNITS) + digits + 6}ch`;
    this.rows.resize(this.lines.rows, this.isFollowing, isSame);
    this.count.textContent = this.text.lines || this.feed.isFinal ? plural(this.text.lines, "line") : "No output yet";
    this.search.extend();
  }

  #ended() {
    this.#follow(false);
    this.followButton.hidden = true;
    this.#onGrow();
  }

  // ---- rows

  #row(row) {
    const { line, from, to } = this.lines.at(row);
    const known = this.#lineContent(line);
    const isMarked = this.marked && this.marked[0] <= line && line <= this.marked[1];
    const number = from ? h("span", { class: "line-number" }) : this.#number(line);
    const text = h("span", { class: "line-text" }, drawRuns(known.runs, from, to, known.marks));
    const more = this.lines.columns ? 0 : known.length - to;
    if (more > 0) text.append(h("span", { class: "line-more" }, ` … ${plural(more, "more character")}: Wrap shows them`));
    return h("div", { class: `line${isMarked ? " is-marked" : ""}` }, number, text);
  }

  // A long line is several rows: its content is computed once for all of them.
  #lineContent(line) {
    if (this.drawing?.line !== line) {
      const plain = this.text.line(line);
      const runs = this.colours.runs(line) ?? [[plain, ""]];
      this.drawing = { line, length: plain.length, runs, marks: this.search.marks(line, plain) };
    }
    return this.drawing;
  }

  // Lines have numbers if all text before them is loaded, byte offsets otherwise.
  #number(line) {
    const isKnown = this.text.base === 0;
    const [name, value] = isKnown ? ["line", line + 1] : ["at", `${this.text.start(line)}-${this.text.stop(line)}`];
    const mark = (event) => this.#onLineClick(event, line);
    const keepFocus = (event) => event.preventDefault();
    const href = `#/tasks/${this.run.id}?tab=output&${name}=${value}`;
    const attributes = { class: "line-number", href, tabindex: -1, onclick: mark, onmousedown: keepFocus };
    return h("a", { ...attributes, "aria-label": isKnown ? `Line ${value}` : "This line" }, isKnown ? String(value) : "·");
  }

  #onDraw(first, last) {
    this.drawing = null;
    clearTimeout(this.colourTimer);
    if (first >= last) return;
    const lines = [this.lines.at(first).line, this.lines.at(last - 1).line + 1];
    this.colourTimer = setTimeout(() => this.colours.request(...lines, this.feed.isFinal), COLOUR_MILLISECONDS);
  }

  #onScroll(isAtEnd) {
    if (this.isFollowing && !isAtEnd) this.#follow(false);
    this.endButton.hidden = isAtEnd;
  }

  // ---- navigation

  #onLineClick(event, line) {
    if (event.ctrlKey || event.metaKey || event.button) return;
    event.preventDefault();
    this.rows.element.focus({ preventScroll: true });
    const from = event.shiftKey && this.marked ? this.marked[0] : line;
    this.#select(Math.min(from, line), Math.max(from, line));
    this.rows.refresh();
  }

  #select(from, to) {
    this.marked = [from, to];
    if (this.text.base) setParams({ line: null, at: `${this.text.start(from)}-${this.text.stop(to)}` });
    else setParams({ at: null, line: from === to ? from + 1 : `${from + 1}-${to + 1}` });
  }

  async #goTo(params) {
    const [, from, to] = /^(\d+)(?:-(\d+))?$/.exec(params.get("line") ?? "") ?? [];
    const [, start, stop] = /^(\d+)-(\d+)$/.exec(params.get("at") ?? "") ?? [];
    if (!from && !start) return;
    if (from) await this.#loadBefore(0);
    else await this.#loadBefore(Number(start));
    if (!this.text.lines) return;
    const last = this.text.lines - 1;
    const first = from ? Number(from) - 1 : this.text.lineAt(Number(start));
    const end = from ? Number(to ?? from) - 1 : this.text.lineAt(Math.max(Number(start), Number(stop) - 1));
    this.#follow(false);
    this.#select(Math.max(0, Math.min(first, last)), Math.max(0, Math.min(end, last)));
    this.#reveal(this.marked[0]);
  }

  #reveal(line, unit = 0) {
    this.#follow(false);
    this.rows.reveal(this.lines.rowOf(line, unit));
    this.endButton.hidden = this.rows.isAtEnd;
    this.rows.refresh();
    const hit = this.rows.layer.querySelector("mark.is-current");
    hit?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #topLine() {
    return this.lines.rows ? this.lines.at(Math.floor(this.rows.top)).line : 0;
  }

  async #goToTypedLine() {
    if (!this.lineField.value) return;
    await this.#goTo(new URLSearchParams({ line: this.lineField.value }));
    this.rows.element.focus({ preventScroll: true });
  }

  #toEnd() {
    if (!this.feed.isFinal) this.#follow(true);
    this.rows.moveTo(Infinity);
    this.endButton.hidden = true;
    this.rows.element.focus({ preventScroll: true });
  }

  #follow(isFollowing) {
    this.isFollowing = isFollowing && !this.feed.isFinal;
    this.followButton.hidden = this.feed.isFinal;
    this.followButton.textContent = this.isFollowing ? "Pause" : "Follow";
    if (this.isFollowing) this.rows.moveTo(Infinity);
    this.endButton.hidden = this.rows.isAtEnd;
  }

  // ---- wrapping, older text, copying

  #toggleWrap() {
    this.isWrapped = !this.isWrapped;
    this.wrapButton.setAttribute("aria-pressed", String(this.isWrapped));
    this.#wrap();
  }

  /** Wraps lines at the terminal's width; the topmost line stays at the top, unless that puts the marked one out of view. */
  #wrap() {
    const columns = this.isWrapped ? this.#columnsThatFit() : 0;
    if (columns === this.lines.columns) return this.rows.refresh();
    const isMarkSeen = this.marked !== null && this.rows.isInView(this.lines.rowOf(this.marked[0]));
    const { line, from } = this.lines.rows ? this.lines.at(Math.floor(this.rows.top)) : { line: 0, from: 0 };
    this.lines.wrap(columns);
    this.rows.element.classList.toggle("is-wrapped", columns > 0);
    this.rows.top = this.lines.rows ? this.lines.rowOf(line, from) : 0;
    this.#onGrow();
    if (isMarkSeen) this.rows.reveal(this.lines.rowOf(this.marked[0]));
  }

  #columnsThatFit() {
    const ruler = h("span", { class: "line-text" }, "0".repeat(100));
    this.rows.layer.append(ruler);
    const width = ruler.getBoundingClientRect().width / 100;
    ruler.remove();
    const digits = Math.max(3, String(this.text.lines).length);
    return width ? Math.max(20, Math.floor(this.rows.element.clientWidth / width) - digits - 4) : 80;
  }

  #updateNotLoaded() {
    const { base } = this.text;
    this.notLoaded.hidden = base === 0;
    const load = async (event) => {
      event.currentTarget.disabled = true;
      await this.#loadBefore(undefined).catch((error) => notify(error.message));
    };
    const words = `The first ${Math.ceil(base / MEBIBYTE)} MiB are not loaded.`;
    replace(this.notLoaded, h("span", {}, words), h("button", { type: "button", onclick: load }, "Load what is before"));
  }

  async #loadBefore(offset) {
    if (this.text.base === 0 || offset >= this.text.base) return;
    const top = this.text.lines ? this.text.start(this.#topLine()) : 0;
    await this.feed.loadBefore(offset);
    this.marked = null;
    this.colours.clear();
    this.lines.wrap(this.lines.columns);
    this.rows.top = this.lines.rowOf(this.text.lineAt(top));
    this.#onGrow();
    this.search.restart();
    this.#updateNotLoaded();
  }

  #copy() {
    const [from, to] = this.marked ?? [0, this.text.lines - 1];
    return copy(this.text.text(from, to + 1), this.marked ? plural(to - from + 1, "line") : "The output");
  }
}
