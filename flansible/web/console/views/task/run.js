// One task as the page knows it: its status, kept up to date until it is final, and the events of its run.

import { get, pause } from "../../api.js";
import { isFinal, stateRow } from "../../states.js";
import { Events } from "./events.js";

const LEAST_SECONDS = 1;

/** Tells of changes: "task" (its status is another), "events" (there are more of them), "trouble" (`fault` is set). */
export class Run extends EventTarget {
  constructor(id, signal) {
    super();
    this.id = id;
    this.signal = signal;
    this.task = null;
    this.fault = null;
    this.events = new Events(id, signal, () => this.#tell("events"));
    this.nudge = () => {};
  }

  get isFinal() {
    return isFinal(this.task);
  }

  /** The status as it is now. */
  async look() {
    this.task = await get(`api/ansibletaskstatus/${this.id}`, {}, this.signal);
    return this.task;
  }

  /** Look now, and tell. */
  async refresh() {
    await this.look();
    this.fault = null;
    this.#tell("task");
  }

  /** Keep the status up to date until the task is final. An event is a reason to look at once. */
  async watch() {
    if (this.isFinal) return;
    this.addEventListener("events", () => this.nudge());
    this.events.load().catch((error) => this.#trouble(error));
    while (!this.isFinal && !this.signal.aborted) {
      await this.#wait(stateRow(this.task.state).pollSeconds ?? LEAST_SECONDS);
      if (this.signal.aborted) return;
      try {
        await this.refresh();
      } catch (error) {
        this.#trouble(error);
        if (error.status === 404) return;
      }
    }
  }

  /** What was asked for, with what is needed to ask again. Asked for once. */
  request() {
    this.asked ??= get(`api/ansibletaskrequest/${this.id}`, {}, this.signal).catch((error) => {
      this.asked = undefined;
      throw error;
    });
    return this.asked;
  }

  async #wait(seconds) {
    await pause(LEAST_SECONDS, this.signal);
    const nudged = new Promise((resolve) => (this.nudge = resolve));
    await Promise.race([nudged, pause(seconds - LEAST_SECONDS, this.signal)]);
    this.nudge = () => {};
  }

  #trouble(error) {
    if (this.signal.aborted) return;
    this.fault = error;
    this.#tell("trouble");
  }

  #tell(what) {
    if (!this.signal.aborted) this.dispatchEvent(new Event(what));
  }
}
