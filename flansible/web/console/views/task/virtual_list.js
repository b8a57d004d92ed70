// A scroll region with rows of one height, of which only the visible ones exist. Scrolls by wheel, scrollbar, touch, keys.
//
// Browsers limit an element to some 17 to 33 million pixels. If all rows together are higher than that, the scroll height
// is compressed, and the wheel is converted to rows here.

import { h, replace } from "../../dom.js";

const MOST_PIXELS = 8_000_000;
const SPARE_ROWS = 12;
const SCROLLBAR = 16;

/** drawRow(row) returns an element. onMove(isAtEnd): the user has scrolled. onDraw(first, last): these rows are drawn. */
export class VirtualList {
  constructor({ label, height, drawRow, onMove = () => {}, onDraw = () => {} }) {
    Object.assign(this, { rowHeight: height, drawRow, onMove, onDraw, count: 0, top: 0, first: 0, last: 0 });
    this.layer = h("div", { class: "virtual-list-layer" });
    this.sizer = h("div", { class: "virtual-list-sizer" }, this.layer);
    const listeners = { onscroll: () => this.#onScroll(), onkeydown: (event) => this.#onKey(event) };
    this.element = h("div", { class: "virtual-list scroll", role: "region", tabindex: 0, "aria-label": label, ...listeners }, this.sizer);
    this.element.addEventListener("wheel", (event) => this.#onWheel(event), { passive: false });
    new ResizeObserver(() => this.moveTo(this.top)).observe(this.element);
  }

  get viewRows() {
    return this.element.clientHeight / this.rowHeight;
  }

  get maxTop() {
    return Math.max(0, this.count - this.viewRows);
  }

  get isAtEnd() {
    return this.top >= this.maxTop - 1;
  }

  /** Sets the number of rows. isSame: old rows are unchanged, so drawn ones are kept: the user may have selected text. */
  resize(count, isFollowing, isSame = false) {
    const wasDrawn = isSame && !isFollowing && this.last < this.count;
    this.count = count;
    this.element.style.height = `${Math.min(MOST_PIXELS, count * this.rowHeight) + SCROLLBAR}px`; // up to the sheet's max-height
    this.sizer.style.height = `${Math.min(MOST_PIXELS, count * this.rowHeight)}px`;
    if (wasDrawn && !this.#isCompressed) return;
    this.moveTo(isFollowing ? Infinity : this.top);
  }

  /** Scrolls until this row is the topmost. */
  moveTo(top) {
    this.top = Math.min(Math.max(0, top), this.maxTop);
    const wanted = this.#scrollOf(this.top);
    if (Math.abs(this.element.scrollTop - wanted) >= 1) this.element.scrollTop = wanted;
    this.refresh();
  }

  isInView(row) {
    return row >= this.top && row <= this.top + this.viewRows - 1;
  }

  /** Scrolls the row into the middle, unless it is visible. */
  reveal(row) {
    if (!this.isInView(row)) this.moveTo(row - this.viewRows / 2);
  }

  /** Redraws the visible rows. */
  refresh() {
    if (!this.element.clientHeight) return;
    this.first = Math.max(0, Math.floor(this.top) - SPARE_ROWS);
    this.last = Math.min(this.count, Math.ceil(this.top + this.viewRows) + SPARE_ROWS);
    const drawn = [];
    for (let row = this.first; row < this.last; row++) drawn.push(this.drawRow(row));
    replace(this.layer, drawn);
    this.#place();
    this.onDraw(this.first, this.last);
  }

  #place() {
    const offset = this.element.scrollTop - (this.top - this.first) * this.rowHeight;
    this.layer.style.transform = `translateY(${Math.round(offset)}px)`;
  }

  get #isCompressed() {
    return this.count * this.rowHeight > MOST_PIXELS;
  }

  #scrollOf(top) {
    if (!this.#isCompressed) return top * this.rowHeight;
    return (top / this.maxTop) * (MOST_PIXELS - this.element.clientHeight);
  }

  #onScroll() {
    const { scrollTop, clientHeight } = this.element;
    if (!clientHeight) return; // in a tab that is not shown
    if (Math.abs(scrollTop - this.#scrollOf(this.top)) < 1.5) return;
    const top = this.#isCompressed ? (scrollTop / (MOST_PIXELS - clientHeight)) * this.maxTop : scrollTop / this.rowHeight;
    this.top = Math.min(Math.max(0, top), this.maxTop);
    this.#afterMove();
  }

  #afterMove() {
    const isDrawn = this.first <= this.top && this.top + this.viewRows <= this.last;
    if (isDrawn) this.#place();
    else this.refresh();
    this.onMove(this.isAtEnd);
  }

  #onWheel(event) {
    if (!this.#isCompressed || !event.deltaY || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    const rows = event.deltaMode === 0 ? event.deltaY / this.rowHeight : event.deltaY * (event.deltaMode === 1 ? 1 : this.viewRows);
    this.#moveBy(rows);
  }

  #onKey(event) {
    if (event.target !== this.element || event.altKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(this.viewRows) - 1);
    const steps = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity };
    steps[" "] = event.shiftKey ? -page : page;
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.#moveBy(steps[event.key]);
  }

  #moveBy(rows) {
    this.moveTo(this.top + rows);
    this.onMove(this.isAtEnd);
  }
}
