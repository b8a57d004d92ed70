// The events of a run as hosts × play tasks: the data of the matrix and the timeline.
//
// Without the modules' results, which are fetched one by one when a cell is opened: so 200,000 cells fit into a page.

import { get, stream } from "../../api.js";
import { gravest, isBad } from "../../states.js";

const PAGE = 5000;
const NOTIFY_MILLISECONDS = 200;


/** columns: play tasks in the order of their start, `{index, play, task, module, handler, start, first, last, results}`.
 * hosts: name -> `{name, cells, bad}`; cells[column]: its results, `{seq, host, column, verdict, seconds, end, from, to}`. */
export class Events {
  constructor(id, signal, onChange) {
    this.id = id;
    this.signal = signal;
    this.onChange = onChange;
    this.timer = null;
    this.after = 0;
    this.isComplete = false;
    this.#reset();
  }

  /** Reads all events and, while the task runs, follows them. Resolves after the last one. */
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
      page.events.forEach((event) => this.#add(event));
      this.isComplete = page.final;
      if (this.isComplete) return this.#notifyNow();
      if (page.next_after === this.after) break;
      this.after = page.next_after;
    }
    await stream(address, { results: false }, {
      signal: this.signal,
      after: this.after,
      onEvent: ({ data }) => this.#add(data),
    });
    this.isComplete = !this.signal.aborted;
    this.#notifyNow();
  }

  /** The hosts that the current play task has no result of yet, as far as earlier results of its play tell them. */
  waitingHosts() {
    const current = this.columns.at(-1);
    if (!current) return [];
    const first = this.columns.findLastIndex(({ play }) => play !== current.play) + 1;
    return [...this.hosts.values()].filter(({ cells, bad }) => !bad && cells.length > first && cells.length <= current.index);
  }

  #reset() {
    this.columns = [];
    this.hosts = new Map();
    this.latest = new Map();
  }

  #add(event) {
    if (event.event === "restart") {
      // The matrix shows the last attempt only. The output has the earlier ones too.
      this.#reset();
      this.attemptStart = event.seq;
    } else if (event.event === "task_start") {
      this.#addColumn(event);
    } else if (event.event === "host_result") {
      this.#addResult(event);
    }
    this.#notifySoon();
  }

  #addColumn({ play = "", task = "", module = "", handler = false, time }) {
    const start = time ? Date.parse(time) : null;
    const column = { index: this.columns.length, play, task, module, handler, start, first: null, last: null, results: [] };
    this.columns.push(column);
    this.latest.set(`${play}\n${task}`, column);
    return column;
  }

  #addResult(event) {
    const column = this.latest.get(`${event.play ?? ""}\n${event.task ?? ""}`) ?? this.#addColumn(event);
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

  #notifySoon() {
    this.timer ??= setTimeout(() => this.#notifyNow(), NOTIFY_MILLISECONDS);
  }

  #notifyNow() {
    clearTimeout(this.timer);
    this.timer = null;
    if (!this.signal.aborted) this.onChange();
  }
}

/** Returns the gravest verdict of a cell's results. */
export function verdictOf(cell) {
  return gravest(cell.map((one) => one.verdict));
}

/** Fetches one event with its result. */
export async function oneEvent(id, seq, signal) {
  const page = await get(`api/ansibletaskevents/${id}`, { after: seq - 1, limit: 1 }, signal);
  return page.events.find((event) => event.seq === seq) ?? null;
}
