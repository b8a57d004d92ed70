// The panel of one cell: the result as JSON, the items of its loop, and its lines of output.

import { copy, errorBox, h, replace } from "../../dom.js";
import { duration, moment, plural, showInvisible } from "../../format.js";
import { isBad, verdictBadge, verdictOfItem } from "../../states.js";
import { drawRuns, fragmentLines } from "./colours.js";
import { oneEvent } from "./events.js";
import { fragment } from "./feed.js";
import { itemName, reason } from "./reason.js";

const SHOWN_CHARACTERS = 20_000;
const SHOWN_ITEMS = 100;
const MOST_OUTPUT_BYTES = 256 * 1024;

export class CellPanel {
  /** onClose(): the caller takes the focus back. onOther(seq): the user has chosen another result of the same cell. */
  constructor(run, { onClose, onOther }) {
    Object.assign(this, { run, onClose, onOther, seq: null });
    this.element = h("section", { class: "panel cell-panel", "aria-label": "Result", tabindex: -1, hidden: true });
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      this.close();
    });
  }

  /** all: the results of the cell known so far. */
  async open(seq, all) {
    this.seq = seq;
    this.element.hidden = false;
    this.element.setAttribute("aria-busy", "true");
    this.element.focus({ preventScroll: true });
    try {
      const event = await oneEvent(this.run.id, seq, this.run.signal);
      if (this.seq !== seq) return;
      replace(this.element, this.#head(event), event?.event === "host_result" ? this.#body(event, all) : h("p", {}, "This result does not exist."));
    } catch (error) {
      if (!this.run.signal.aborted) replace(this.element, this.#head(null), errorBox(error));
    }
    this.element.removeAttribute("aria-busy");
    if (this.isOutOfSight(0)) this.element.scrollIntoView({ block: "start" });
  }

  /** Whether the panel is so far below the matrix that it is out of sight where the window begins at `top`. */
  isOutOfSight(top) {
    return this.element.checkVisibility() && this.element.getBoundingClientRect().top - top > window.innerHeight - 80;
  }

  close() {
    this.seq = null;
    this.element.hidden = true;
    replace(this.element);
    this.onClose();
  }

  #head(event) {
    const title = event?.host ? [verdictBadge(event.verdict), " ", h("bdi", {}, event.host)] : "Result";
    const close = h("button", { type: "button", class: "quiet close", "aria-label": "Close", title: "Close (Esc)", onclick: () => this.close() }, "✕");
    return h("div", { class: "cell-head" }, h("h3", {}, title), close);
  }

  #body(event, all) {
    const facts = [
      ["Play task", h("bdi", {}, event.task)],
      ["Play", h("bdi", {}, event.play)],
      ["Module", h("code", {}, event.module)],
      ["Took", duration(event.duration_seconds)],
      ["Ended", moment(event.time)],
      ["Attempts", event.result?.attempts ?? null],
    ].filter(([, value]) => value !== null && value !== "");
    const list = h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
    return [this.#resultChoice(event, all), list, this.#failureText(event), this.#items(event.result), this.#json(event.result), this.#lines(event)];
  }

  // The play task has run several times on this host, as with a loop over include_tasks.
  #resultChoice(event, all) {
    if (all.length < 2) return null;
    const buttons = all.map((one, i) => {
      const attributes = { type: "button", "aria-pressed": String(one.seq === event.seq), onclick: () => this.onOther(one.seq) };
      return h("button", attributes, verdictBadge(one.verdict, `${i + 1}`));
    });
    return h("div", { class: "row", role: "group", "aria-label": "Results of this cell" }, h("span", { class: "hint" }, plural(all.length, "result")), buttons);
  }

  #failureText({ verdict, result }) {
    if (!isBad(verdict)) return null;
    return h("p", { class: "failure-text" }, reason(result).text);
  }

  #items(result) {
    const items = Array.isArray(result?.results) ? result.results.filter((item) => item && typeof item === "object") : [];
    if (!items.length) return null;
    const rows = items.slice(0, SHOWN_ITEMS).map((item) => {
      const verdict = verdictOfItem(item);
      const text = isBad(verdict) ? reason({ ...item, results: undefined }).text : "";
      return h("tr", {}, h("td", {}, verdictBadge(verdict)), h("td", {}, h("bdi", {}, itemName(item))), h("td", {}, text));
    });
    const head = h("tr", {}, ["How", "Item", "Message"].map((word) => h("th", { scope: "col" }, word)));
    const rest = items.length > SHOWN_ITEMS ? h("p", { class: "hint" }, `… and ${plural(items.length - SHOWN_ITEMS, "more item")} in the JSON`) : null;
    return h("details", { open: items.length <= 10 }, h("summary", {}, plural(items.length, "item")), h("div", { class: "scroll" }, h("table", {}, h("thead", {}, head), h("tbody", {}, rows))), rest);
  }

  #json(result) {
    const text = JSON.stringify(result ?? null, null, 2);
    const shown = h("pre", { class: "json", tabindex: 0, "aria-label": "Result as JSON" }, showInvisible(text.slice(0, SHOWN_CHARACTERS)));
    const all = (event) => {
      shown.textContent = showInvisible(text);
      event.currentTarget.remove();
    };
    const isLong = text.length > SHOWN_CHARACTERS;
    const more = isLong ? h("button", { type: "button", onclick: all }, `Show all ${Math.ceil(text.length / 1024).toLocaleString()} KiB`) : null;
    const bar = h("div", { class: "row part-head" }, h("h4", {}, "Result"), h("button", { type: "button", class: "quiet", onclick: () => copy(text, "The result") }, "Copy JSON"));
    return [bar, shown, more];
  }

  #lines({ output_start: from, output_end: to }) {
    if (to <= from) return null;
    const shown = h("pre", { class: "terminal cell-lines", tabindex: 0, "aria-label": "Lines of output" });
    const href = `#/tasks/${this.run.id}?${new URLSearchParams({ tab: "output", at: `${from}-${to}` })}`;
    const end = Math.min(to, from + MOST_OUTPUT_BYTES);
    fragment(this.run.id, from, end, this.run.signal).then(
      (html) => replace(shown, fragmentLines(html).map((runs) => [drawRuns(runs), "\n"])),
      () => replace(shown, "These lines could not be read."),
    );
    return [h("div", { class: "row part-head" }, h("h4", {}, "Output"), h("a", { href, "data-stay": true }, "Show in the output")), shown];
  }
}
