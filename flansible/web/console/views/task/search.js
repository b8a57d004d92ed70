// Searches all of an output, ignoring case, in pieces so that the page stays responsive.

const LINES_AT_ONCE = 5000;
const MOST_HITS = 500_000;

export class Search {
  constructor(text, onMore) {
    this.text = text;
    this.onMore = onMore;
    this.clear();
  }

  clear() {
    this.pattern = null;
    this.lines = [];
    this.columns = [];
    this.current = -1;
    this.done = 0;
  }

  get count() {
    return this.lines.length;
  }

  get isFull() {
    return this.count >= MOST_HITS;
  }

  /** Searches for this word from the beginning; resolves when all present text was searched. */
  async start(word) {
    this.clear();
    if (!word) return;
    this.pattern = new RegExp(word.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&"), "gi");
    await this.extend();
  }

  /** Searches the text that has arrived since. */
  async extend() {
    const { pattern } = this;
    if (!pattern || this.isBusy === pattern) return;
    this.isBusy = pattern;
    this.#dropLastLine();
    while (this.pattern === pattern && this.done < this.text.lines && !this.isFull) {
      const to = Math.min(this.done + LINES_AT_ONCE, this.text.lines);
      this.#find(this.done, to);
      this.done = to;
      this.onMore();
      await new Promise((resolve) => setTimeout(resolve));
    }
    if (this.isBusy === pattern) this.isBusy = null;
  }

  /** Returns the next match in this direction, `{line, start}`, wrapping around; at first the first one from this line on. */
  step(direction, line) {
    if (!this.count) return null;
    if (this.current >= 0) {
      this.current = (this.current + direction + this.count) % this.count;
    } else {
      const found = this.lines.findIndex((one) => one >= line);
      this.current = found < 0 ? 0 : found;
    }
    return { line: this.lines[this.current], start: this.columns[this.current] };
  }

  /** Returns the marks of one line: `[start, end, classes]`. */
  marks(line, text) {
    if (!this.pattern) return [];
    const isHere = this.lines[this.current] === line;
    return [...text.matchAll(this.pattern)].map(({ index, 0: found }) => {
      const isCurrent = isHere && this.columns[this.current] === index;
      return [index, index + found.length, isCurrent ? "is-current" : ""];
    });
  }

  // The line that was the last may have grown.
  #dropLastLine() {
    if (!this.done) return;
    this.done -= 1;
    while (this.count && this.lines[this.count - 1] >= this.done) {
      this.lines.pop();
      this.columns.pop();
    }
  }

  #find(from, to) {
    const block = this.text.text(from, to);
    let line = from;
    let start = 0;
    let stop = block.indexOf("\n");
    for (const { index } of block.matchAll(this.pattern)) {
      while (stop >= 0 && stop < index) {
        line += 1;
        start = stop + 1;
        stop = block.indexOf("\n", start);
      }
      this.lines.push(line);
      this.columns.push(index - start);
      if (this.isFull) return;
    }
  }
}
