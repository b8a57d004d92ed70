// The colours of the visible lines: HTML fragments from the server, rebuilt node by node, and cached.
//
// A line is an array of runs, `[text, classes]`. The displayed text is always that of the plain output: colours of a
// different text are not used.

import { showInvisible } from "../../format.js";

const CHUNK_BYTES = 64 * 1024;
const MOST_BYTES = 256 * 1024;
const KEPT_CHUNKS = 48;

/** Parses a `format=fragment` into lines. Of its elements only the classes of spans are kept. */
export function fragmentLines(html) {
  // The HTML parser turns a carriage return into a newline, unless it is a character reference.
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

/** Creates elements for a part of a line. marks: search matches in order, `[start, end, classes]`. */
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
    found.push(showInvisible(text.slice(done, begin)), element("mark", classes, [showInvisible(text.slice(begin, end))]));
    done = end;
  }
  return [...found, showInvisible(text.slice(done))];
}

function element(tag, classes, children) {
  const found = document.createElement(tag);
  if (classes) found.className = classes;
  found.append(...children);
  return found;
}

/** Fetches colours by chunks of bytes. load(from, to) returns HTML; onMore(): more colours have arrived. */
export class Colours {
  constructor(text, load, onMore) {
    this.text = text;
    this.load = load;
    this.onMore = onMore;
    this.chunks = new Map();
  }

  /** Drops all colours: the numbers of lines have changed. */
  clear() {
    this.chunks.clear();
  }

  /** Returns the runs of a line, or null while it has no colours. */
  runs(line) {
    const number = chunkOf(this.text.start(line));
    const chunk = this.chunks.get(number);
    return chunk?.lines[line - this.text.lineFrom(number * CHUNK_BYTES)] ?? null;
  }

  /** Requests the colours of these lines, as far as they are complete; the last line of a final output is. */
  request(first, last, isFinal) {
    if (last <= first) return;
    const end = chunkOf(this.text.start(last - 1));
    for (let number = chunkOf(this.text.start(first)); number <= end; number++) this.#request(number, isFinal);
  }

  async #request(number, isFinal) {
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
    for (let i = 0; i < stop - next; i++) chunk.lines.push(ifSameText(coloured[i], text.line(next + i)));
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

function ifSameText(runs, plain) {
  return runs && runs.map(([text]) => text).join("") === plain ? runs : null;
}

function chunkOf(offset) {
  return Math.floor(offset / CHUNK_BYTES);
}
