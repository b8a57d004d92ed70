// The search field above an output: the number of matches, and buttons for the next and previous one.

import { h } from "../../dom.js";
import { plural } from "../../format.js";
import { Search } from "./search.js";

const TYPING_MILLISECONDS = 150;

/** view: `reveal(match)` scrolls to it, `refresh()` redraws the marks, `topLine()` is the topmost visible line. */
export class SearchBar {
  constructor(text, view) {
    this.view = view;
    this.search = new Search(text, () => this.#onMatches());
    const button = (name, word, step) => h("button", { type: "button", class: "quiet", "aria-label": name, title: name, onclick: () => this.#step(step) }, word);
    this.field = h("input", { type: "search", placeholder: "Search the output", "aria-label": "Search the output", oninput: () => this.#onInput() });
    this.field.addEventListener("keydown", (event) => this.#onKey(event));
    this.count = h("span", { class: "hint match-count", role: "status" });
    const arrows = [button("Previous match", "↑", -1), button("Next match", "↓", 1)];
    this.element = h("div", { class: "search-bar", role: "search" }, this.field, this.count, arrows);
  }

  /** Returns the marks of a line. */
  marks(line, text) {
    return this.search.marks(line, text);
  }

  /** Searches the text that has arrived since. */
  extend() {
    this.search.extend();
  }

  restart() {
    this.search.start(this.field.value);
  }

  #onKey(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      this.#onInput(true);
      this.#step(event.shiftKey ? -1 : 1);
    } else if (event.key === "Escape" && this.field.value) {
      event.preventDefault();
      this.field.value = "";
      this.#onInput(true);
    }
  }

  #onInput(isHurried = false) {
    clearTimeout(this.timer);
    const start = () => {
      if (this.word === this.field.value) return;
      this.word = this.field.value;
      this.isNew = true;
      this.search.start(this.word);
      this.#onMatches();
      this.view.refresh();
    };
    if (isHurried) start();
    else this.timer = setTimeout(start, TYPING_MILLISECONDS);
  }

  // Goes to the first match as soon as it is found, unless the user has chosen one already.
  #onMatches() {
    if (this.isNew && this.search.count) {
      this.isNew = false;
      this.#step(1);
    }
    this.#updateCount();
  }

  #step(direction) {
    const hit = this.search.step(direction, this.view.topLine());
    this.isNew &&= !hit;
    this.#updateCount();
    if (hit) this.view.reveal(hit);
  }

  #updateCount() {
    const { count, current, isFull } = this.search;
    const all = `${count.toLocaleString()}${isFull ? "+" : ""}`;
    if (!this.field.value) this.count.textContent = "";
    else if (!count) this.count.textContent = "no match";
    else this.count.textContent = current < 0 ? plural(count, "match", "matches") : `${(current + 1).toLocaleString()} of ${all}`;
  }
}
