// The colours of the lines in sight: pieces of HTML from the server, rebuilt node by node, and kept for a while.
//
// A line is an array of runs, `[text, classes]`. The text that is shown is always that of the plain output: colours whose
// text is another one are not used.

import { visible } from "./text.js";

const CHUNK_BYTES = 64 * 1024;
const MOST_BYTES = 256 * 1024;
const KEPT_CHUNKS = 48;

/** The lines of a `format=fragment`. Of its elements nothing is kept but the classes of spans. */
export function fragmentLines(html) {
  // The parser takes a carriage return for a newline, unless it is written as a reference.
  const source = `<!DOCTYPE html><body><pre>\n${html.replaceAll("\r", "&#13;")}`;
  const lines = [[]];
  walk(new DOMParser().parseFromString(source, "text/html").body, "", lines);
  if (lines.length > 1 && !lines.at(-1).length) lines.pop();
  return lines;
}

function walk(node, classes, lines) {
  for (const child of node.childNodes) {
    if (child.nodeType === Node.ELEMENT_NODE) {
      const own = child.localName === "span" ? child.className : "";
      walk(child, [classes, own].filter(Boolean).join(" "), lines);
    } else if (child.nodeType === Node.TEXT_NODE) {
      child.data.split("\n").forEach((text, i) => {
        if (i) lines.push([]);
        if (text) lines.at(-1).push([text, classes]);
      });
    }
  }
}

/** Elements for what stands between two places of a line. marks: `[start, end, classes]` in order, for what was found. */
export function drawRuns(runs, from = 0, to = Infinity, marks = []) {
  const found = [];
  let at = 0;
  for (const [text, classes] of runs) {
    const start = Math.max(from, at);
    const end = Math.min(to, at + text.length);
    if (start < end) found.push(element("span", classes, marked(text.slice(start - at, end - at), start, marks)));
    at += text.length;
    if (at >= to) break;
  }
  return found;
}

function marked(text, start, marks) {
  const found = [];
  let done = 0;
  for (const [from, to, classes] of marks) {
    const begin = Math.max(from - start, done);
    const end = Math.min(to - start, text.length);
    if (begin >= end) continue;
    found.push(visible(text.slice(done, begin)), element("mark", classes, [visible(text.slice(begin, end))]));
    done = end;
  }
  return [...found, visible(text.slice(done))];
}

function element(tag, classes, children) {
  const found = document.createElement(tag);
  if (classes) found.className = classes;
  found.append(...children);
  return found;
}

/** Fetches colours by chunks of bytes. load(from, to) gives HTML; onMore() tells that there are more of them. */
export class Colours {
  constructor(text, load, onMore) {
    this.text = text;
    this.load = load;
    this.onMore = onMore;
    this.chunks = new Map();
  }

  /** Lines are counted from elsewhere now. */
  clear() {
    this.chunks.clear();
  }

  /** The runs of a line, or null while it has no colours. */
  runs(line) {
    const number = chunkOf(this.text.start(line));
    const chunk = this.chunks.get(number);
    return chunk?.lines[line - this.text.lineFrom(number * CHUNK_BYTES)] ?? null;
  }

  /** See to it that these lines have theirs, as far as they are whole; a final output's last line is. */
  want(first, last, isFinal) {
    if (last <= first) return;
    const end = chunkOf(this.text.start(last - 1));
    for (let number = chunkOf(this.text.start(first)); number <= end; number++) this.#want(number, isFinal);
  }

  async #want(number, isFinal) {
    const { text } = this;
    const first = text.lineFrom(number * CHUNK_BYTES);
    let stop = text.lineFrom((number + 1) * CHUNK_BYTES);
    if (stop === text.lines && !isFinal && stop && !text.isWhole(stop - 1)) stop -= 1;
    const chunk = this.#chunk(number);
    const next = first + chunk.lines.length;
    if (chunk.isLoading || next >= stop) return;
    chunk.isLoading = true;
    const from = text.start(next);
    const html = await this.load(from, Math.min(text.stop(stop - 1), from + MOST_BYTES)).catch(() => "");
    chunk.isLoading = false;
    const coloured = fragmentLines(html);
    for (let i = 0; i < stop - next; i++) chunk.lines.push(checked(coloured[i], text.line(next + i)));
    this.onMore();
  }

  #chunk(number) {
    const chunk = this.chunks.get(number) ?? { lines: [], isLoading: false };
    this.chunks.delete(number);
    this.chunks.set(number, chunk);
    if (this.chunks.size > KEPT_CHUNKS) this.chunks.delete(this.chunks.keys().next().value);
    return chunk;
  }
}

function checked(runs, plain) {
  return runs && runs.map(([text]) => text).join("") === plain ? runs : null;
}

function chunkOf(offset) {
  return Math.floor(offset / CHUNK_BYTES);
}
