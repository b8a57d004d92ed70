// The state of the page: the task's status, polled until it is final, and the events of its run.

import { get, pause } from "../../api.js";
import { isFinal, stateRow } from "../../states.js";
import { Events } from "./events.js";

const LEAST_SECONDS = 1;

/** Dispatches "task" (the status was read), "events" (more events have arrived), "failure" (`error` is set). */
export class Run extends EventTarget {
  constructor(id, signal) {
    super();
    this.id = id;
    this.signal = signal;
    this.task = null;
    this.error = null;
    this.events = new Events(id, signal, () => this.#dispatch("events"));
    this.hasNews = false; // events have arrived since the status was requested
    this.endWait = () => {};
  }

  get isFinal() {
    return isFinal(this.task);
  }

  /** Reads the status. A final one stays: replies may overtake each other. */
  async load() {
    const task = await get(`api/ansibletaskstatus/${this.id}`, {}, this.signal);
    if (!this.task || !this.isFinal) this.task = task;
  }

  /** Reads the status and dispatches "task", unless the task is known to be final. */
  async refresh() {
    if (this.isFinal) return;
    await this.load();
    this.error = null;
    this.#dispatch("task");
  }

  /** Polls the status until the task is final: earlier when events arrive, at once when they end. */
  async watch() {
    if (this.isFinal) return;
    this.addEventListener("events", () => {
      this.hasNews = true;
      this.endWait();
    });
    this.events.load().then(() => this.refresh()).catch((error) => this.#fail(error));
    while (!this.isFinal && !this.signal.aborted) {
      await this.#wait(stateRow(this.task.state).pollSeconds ?? LEAST_SECONDS);
      if (this.signal.aborted) return;
      this.hasNews = false;
      try {
        await this.refresh();
      } catch (error) {
        this.#fail(error);
        if (error.status === 404) return;
      }
    }
  }

  /** Fetches the request and what is needed to send it again. Fetched once. */
  request() {
    this.requestPromise ??= get(`api/ansibletaskrequest/${this.id}`, {}, this.signal).catch((error) => {
      this.requestPromise = undefined;
      throw error;
    });
    return this.requestPromise;
  }

  /** Waits so long; after LEAST_SECONDS only until there is news, which may have come before. */
  async #wait(seconds) {
    await pause(LEAST_SECONDS, this.signal);
    if (this.hasNews) return;
    const news = new Promise((resolve) => (this.endWait = resolve));
    await Promise.race([news, pause(seconds - LEAST_SECONDS, this.signal)]);
  }

  #fail(error) {
    if (this.signal.aborted) return;
    this.error = error;
    this.#dispatch("failure");
  }

  #dispatch(what) {
    if (!this.signal.aborted) this.dispatchEvent(new Event(what));
  }
}
