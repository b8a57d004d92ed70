// The events of a run, put together as hosts × play tasks: what the matrix and the timeline are drawn from.
//
// Without the modules' results, which are fetched one by one where somebody looks: 200,000 cells fit in a page.

import { get, stream } from "../../api.js";
import { gravest, isBad } from "../../states.js";

const PAGE = 5000;
const TELL_MILLISECONDS = 200;


/** columns: play tasks in the order they began, `{index, play, task, module, handler, start, first, last, results}`.
 * hosts: name -> `{name, cells, bad}`; cells[column]: its results, `{seq, host, column, verdict, seconds, end, from, to}`. */
export class Events {
  constructor(id, signal, onChange) {
    this.id = id;
    this.signal = signal;
    this.onChange = onChange;
    this.timer = null;
    this.after = 0;
    this.isComplete = false;
    this.#begin();
  }

  /** Read all there are and, while the task runs, those that come. The promise holds until the last one is here. */
  load() {
    this.loading ??= this.#load().catch((error) => {
      this.loading = undefined;
      throw error;
    });
    return this.loading;
  }

  async #load() {
    const address = `api/ansibletaskevents/${this.id}`;
    for (;;) {
      const page = await get(address, { results: false, after: this.after, limit: PAGE }, this.signal);
      page.events.forEach((event) => this.#take(event));
      this.isComplete = page.final;
      if (this.isComplete) return this.#tellNow();
      if (page.next_after === this.after) break;
      this.after = page.next_after;
    }
    await stream(address, { results: false }, {
      signal: this.signal,
      after: this.after,
      onEvent: ({ data }) => this.#take(data),
    });
    this.isComplete = !this.signal.aborted;
    this.#tellNow();
  }

  #begin() {
    this.columns = [];
    this.hosts = new Map();
    this.latest = new Map();
  }

  #take(event) {
    if (event.event === "restart") {
      // What an attempt before this one did is in the output; the matrix is of the run that counts.
      this.#begin();
      this.attemptStart = event.seq;
    } else if (event.event === "task_start") {
      this.#column(event);
    } else if (event.event === "host_result") {
      this.#result(event);
    }
    this.#tell();
  }

  #column({ play = "", task = "", module = "", handler = false, time }) {
    const start = time ? Date.parse(time) : null;
    const column = { index: this.columns.length, play, task, module, handler, start, first: null, last: null, results: [] };
    this.columns.push(column);
    this.latest.set(`${play}\n${task}`, column);
    return column;
  }

  #result(event) {
    const column = this.latest.get(`${event.play ?? ""}\n${event.task ?? ""}`) ?? this.#column(event);
    const end = Date.parse(event.time);
    const seconds = event.duration_seconds ?? 0;
    const { seq, host, verdict, output_start: from, output_end: to } = event;
    const one = { seq, host, column: column.index, verdict, seconds, end, from, to };
    column.first = Math.min(column.first ?? Infinity, end - seconds * 1000);
    column.last = Math.max(column.last ?? 0, end);
    column.results.push(one);
    if (!this.hosts.has(host)) this.hosts.set(host, { name: host, cells: [], bad: 0 });
    const row = this.hosts.get(host);
    (row.cells[column.index] ??= []).push(one);
    if (isBad(verdict)) row.bad += 1;
  }

  #tell() {
    this.timer ??= setTimeout(() => this.#tellNow(), TELL_MILLISECONDS);
  }

  #tellNow() {
    clearTimeout(this.timer);
    this.timer = null;
    if (!this.signal.aborted) this.onChange();
  }
}

/** The gravest verdict of a cell's results. */
export function verdictOf(cell) {
  return gravest(cell.map((one) => one.verdict));
}

/** One event with everything in it. */
export async function oneEvent(id, seq, signal) {
  const page = await get(`api/ansibletaskevents/${id}`, { after: seq - 1, limit: 1 }, signal);
  return page.events.find((event) => event.seq === seq) ?? null;
}
