// The search field above an output: how many, the next, the one before.

import { h } from "../../dom.js";
import { plural } from "../../format.js";
import { Search } from "./search.js";

const TYPING_MILLISECONDS = 150;

/** view: `reveal(hit)` goes to it, `refresh()` draws the marks anew, `topLine()` is where the eyes are. */
export class SearchBar {
  constructor(text, view) {
    this.view = view;
    this.search = new Search(text, () => this.#found());
    const button = (name, word, step) => h("button", { type: "button", class: "quiet", "aria-label": name, title: name, onclick: () => this.#step(step) }, word);
    this.field = h("input", { type: "search", placeholder: "Search the output", "aria-label": "Search the output", oninput: () => this.#typed() });
    this.field.addEventListener("keydown", (event) => this.#key(event));
    this.said = h("span", { class: "hint match-count", role: "status" });
    const arrows = [button("Previous match", "↑", -1), button("Next match", "↓", 1)];
    this.element = h("div", { class: "search-bar", role: "search" }, this.field, this.said, arrows);
  }

  /** The marks of a line that is drawn. */
  marks(line, text) {
    return this.search.marks(line, text);
  }

  /** The output has grown, or is another one. */
  grow() {
    this.search.goOn();
  }

  again() {
    this.search.start(this.field.value);
  }

  #key(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      this.#typed(true);
      this.#step(event.shiftKey ? -1 : 1);
    } else if (event.key === "Escape" && this.field.value) {
      event.preventDefault();
      this.field.value = "";
      this.#typed(true);
    }
  }

  #typed(isHurried = false) {
    clearTimeout(this.timer);
    const start = () => {
      if (this.word === this.field.value) return;
      this.word = this.field.value;
      this.isNew = true;
      this.search.start(this.word);
      this.#found();
      this.view.refresh();
    };
    if (isHurried) start();
    else this.timer = setTimeout(start, TYPING_MILLISECONDS);
  }

  // The first one found is gone to as soon as it is known, unless somebody has chosen one already.
  #found() {
    if (this.isNew && this.search.count) {
      this.isNew = false;
      this.#step(1);
    }
    this.#say();
  }

  #step(direction) {
    const hit = this.search.step(direction, this.view.topLine());
    this.isNew &&= !hit;
    this.#say();
    if (hit) this.view.reveal(hit);
  }

  #say() {
    const { count, current, isFull } = this.search;
    const all = `${count.toLocaleString()}${isFull ? "+" : ""}`;
    if (!this.field.value) this.said.textContent = "";
    else if (!count) this.said.textContent = "no match";
    else this.said.textContent = current < 0 ? plural(count, "match", "matches") : `${(current + 1).toLocaleString()} of ${all}`;
  }
}
