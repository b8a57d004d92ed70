// The text of an output as bytes with an index of its lines: a hundred thousand lines are two buffers, and a line becomes
// a string only when it is drawn or searched.

const NEWLINE = 10;
const decoder = new TextDecoder();

/** Lines are numbered from 0 here. Offsets are bytes of the whole output, as the API counts them. */
export class OutputText {
  constructor(base = 0) {
    this.base = base;
    this.size = 0;
    this.bytes = new Uint8Array(1 << 16);
    this.starts = new Uint32Array(1 << 10);
    this.lengths = new Uint32Array(1 << 10);
    this.lines = 0;
    this.longest = 0;
  }

  get end() {
    return this.base + this.size;
  }

  append(more) {
    if (this.size + more.length > this.bytes.length) {
      const grown = new Uint8Array(Math.max(this.bytes.length * 2, this.size + more.length));
      grown.set(this.bytes.subarray(0, this.size));
      this.bytes = grown;
    }
    this.bytes.set(more, this.size);
    this.#index(more);
    this.size += more.length;
  }

  /** Inserts text before the loaded part. */
  prepend(more) {
    const whole = new Uint8Array(more.length + this.size);
    whole.set(more);
    whole.set(this.bytes.subarray(0, this.size), more.length);
    Object.assign(this, new OutputText(this.base - more.length));
    this.append(whole);
  }

  start(line) {
    return this.base + this.starts[line];
  }

  /** Returns the byte after the line and its newline. */
  stop(line) {
    return line + 1 < this.lines ? this.base + this.starts[line + 1] : this.end;
  }

  /** Returns the length in UTF-16 units, as of strings. */
  length(line) {
    return this.lengths[line];
  }

  /** Whether the line has one byte per unit: then all its characters have one width. */
  isNarrow(line) {
    const bytes = this.stop(line) - this.start(line);
    return bytes - this.lengths[line] <= 1;
  }

  /** Whether the line has its newline: the last line may still grow. */
  isWhole(line) {
    return line + 1 < this.lines || this.bytes[this.size - 1] === NEWLINE;
  }

  line(line) {
    return this.text(line, line + 1).replace(/\n$/, "");
  }

  /** Returns the lines from one up to another, unchanged. */
  text(from, to) {
    if (from >= to) return "";
    return decoder.decode(this.bytes.subarray(this.starts[from], this.stop(to - 1) - this.base));
  }

  /** Returns the line that contains a byte. */
  lineAt(offset) {
    let low = 0;
    let high = this.lines;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.start(middle) <= offset) low = middle;
      else high = middle;
    }
    return low;
  }

  /** Returns the first line that begins at this byte or later; `lines` when there is none. */
  lineFrom(offset) {
    if (!this.lines || offset <= this.base) return 0;
    return this.lineAt(offset - 1) + 1;
  }

  #index(more) {
    const from = this.size;
    let isNew = !this.lines || this.bytes[from - 1] === NEWLINE;
    let length = isNew ? 0 : this.lengths[this.lines - 1];
    for (let i = 0; i < more.length; i++) {
      if (isNew) {
        this.#addLine(from + i);
        length = 0;
        isNew = false;
      }
      const byte = more[i];
      if (byte === NEWLINE) isNew = true;
      else if ((byte & 0xc0) !== 0x80) length += byte >= 0xf0 ? 2 : 1;
      if (isNew || i === more.length - 1) {
        this.lengths[this.lines - 1] = length;
        if (length > this.longest) this.longest = length;
      }
    }
  }

  #addLine(start) {
    if (this.lines === this.starts.length) {
      this.starts = doubled(this.starts);
      this.lengths = doubled(this.lengths);
    }
    this.starts[this.lines] = start;
    this.lines += 1;
  }
}

function doubled(array) {
  const grown = new Uint32Array(array.length * 2);
  grown.set(array);
  return grown;
}
