// Maps rows of the screen to parts of lines: with wrapping, one line is several rows.

/** Characters of a line that is not wrapped; the rest of a longer line is only shown wrapped. */
export const MOST_UNITS = 4000;

export class Lines {
  constructor(text) {
    this.text = text;
    this.columns = 0;
    this.ends = new Uint32Array(1 << 10);
    this.counted = 0;
  }

  get rows() {
    if (!this.columns) return this.text.lines;
    return this.counted ? this.ends[this.counted - 1] : 0;
  }

  /** Wraps lines after so many characters; 0: does not wrap. */
  wrap(columns) {
    this.columns = columns;
    this.counted = 0;
    this.grow();
  }

  /** Counts the rows of new text. The line that was the last may have grown too. */
  grow() {
    if (!this.columns) return;
    if (this.ends.length < this.text.lines) {
      const grown = new Uint32Array(this.text.lines * 2);
      grown.set(this.ends);
      this.ends = grown;
    }
    for (let line = Math.max(0, this.counted - 1); line < this.text.lines; line++) {
      const rows = Math.max(1, Math.ceil(this.text.length(line) / this.#width(line)));
      this.ends[line] = (line ? this.ends[line - 1] : 0) + rows;
    }
    this.counted = this.text.lines;
  }

  /** Returns what a row shows, `{line, from, to}`: UTF-16 units of the line. */
  at(row) {
    if (!this.columns) return { line: row, from: 0, to: MOST_UNITS };
    let low = 0;
    let high = this.counted - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.ends[middle] > row) high = middle;
      else low = middle + 1;
    }
    const width = this.#width(low);
    const from = (row - (low ? this.ends[low - 1] : 0)) * width;
    return { line: low, from, to: from + width };
  }

  /** Returns the row that shows this unit of the line. */
  rowOf(line, unit = 0) {
    if (!this.columns) return line;
    return (line ? this.ends[line - 1] : 0) + Math.floor(unit / this.#width(line));
  }

  // Characters other than ASCII may be twice as wide, and none may be cut off.
  #width(line) {
    return this.text.isNarrow(line) ? this.columns : Math.max(1, this.columns >> 1);
  }
}
