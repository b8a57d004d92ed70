// The failures at the top of the page: for each failed host its first failed play task, and the reason.

import { get } from "../../api.js";
import { h, replace } from "../../dom.js";
import { plural, showInvisible } from "../../format.js";
import { BAD_VERDICTS, isBad, stateRow, verdictBadge } from "../../states.js";
import { oneEvent } from "./events.js";
import { lastLines } from "./feed.js";
import { reason } from "./reason.js";

const SHOWN_HOSTS = 50;
const SHOWN_AT_ONCE = 4;
const MAX_UNFOLDED = 6; // up to so many are shown without folding
const SHORT_LINES = 6;
const SHORT_CHARACTERS = 600;
const PAGE = 5000;
const LAST_LINES = 15;
const MOST_LINES = 40;
// The first line of Ansible's last error message; the lines after it belong to it.
const BEGINS = /^(\[ERROR\]|ERROR)/;

/** hosts, in the order of their failures: name -> the first failed event, without its result. */
export class Failures {
  constructor(run) {
    this.run = run;
    this.hosts = new Map();
    this.after = 0;
    this.list = h("ul", { class: "failures" });
    this.heading = h("h2", {});
    this.rest = h("p", { class: "hint" });
    this.moreButton = h("button", { type: "button", hidden: true, onclick: () => this.#showMore() });
    this.box = h("section", { class: "panel failure-box", "aria-label": "Failures", hidden: true }, this.heading, this.list, this.moreButton, this.rest);
    this.withoutHosts = h("section", { class: "panel failure-box", "aria-label": "Why it failed", hidden: true });
    this.element = h("div", {}, this.box, this.withoutHosts);
  }

  /** Reads and shows the failures since the last call. Concurrent calls are merged into one. */
  async update() {
    if (this.isUpdating) return (this.isStale = true);
    this.isUpdating = true;
    try {
      do {
        this.isStale = false;
        if (this.#mayHaveFailures()) await this.#read();
        await this.#show();
      } while (this.isStale && !this.run.signal.aborted);
    } finally {
      this.isUpdating = false;
    }
    return true;
  }

  // Without failures in the counts, the events are not read: that takes seconds for a large run.
  #mayHaveFailures() {
    const { counts } = this.run.task;
    return !counts || BAD_VERDICTS.some((verdict) => counts[verdict] > 0);
  }

  async #read() {
    const { id, signal, events, task } = this.run;
    // Failures of an earlier, lost attempt do not count.
    if (task.attempt > 1) await (this.run.isFinal ? events.load() : null);
    if (events.attemptStart > this.after) this.#restart(events.attemptStart);
    for (;;) {
      const params = { verdict: BAD_VERDICTS.join(","), results: false, after: this.after, limit: PAGE };
      const page = await get(`api/ansibletaskevents/${id}`, params, signal);
      for (const event of page.events) {
        if (isBad(event.verdict) && !this.hosts.has(event.host)) this.hosts.set(event.host, event);
      }
      const isAll = page.final || page.next_after === this.after;
      this.after = page.next_after;
      if (isAll) return;
    }
  }

  #restart(after) {
    this.after = after;
    this.hosts.clear();
    replace(this.list);
  }

  async #show() {
    const { size } = this.hosts;
    this.box.hidden = size === 0;
    this.heading.textContent = `Failed on ${plural(size, "host")}`;
    const first = [...this.hosts.values()].slice(this.list.childElementCount, SHOWN_HOSTS);
    const events = await Promise.all(first.map((event) => this.#loadWhole(event)));
    this.list.append(...events.map((event) => this.#item(event)));
    this.#fold();
    replace(this.rest, size > SHOWN_HOSTS ? this.#andMore(size) : null);
    this.rest.hidden = size <= SHOWN_HOSTS;
    if (!size && this.run.isFinal) await this.#showWithoutHosts();
  }

  // Many failures with one reason must not push the tabs off the page.
  #fold() {
    const items = [...this.list.children];
    const isFolded = !this.isUnfolded && items.length > MAX_UNFOLDED;
    items.slice(SHOWN_AT_ONCE).forEach((item) => (item.hidden = isFolded));
    this.moreButton.hidden = !isFolded;
    this.moreButton.textContent = `Show ${items.length - SHOWN_AT_ONCE} more`;
  }

  #showMore() {
    this.isUnfolded = true;
    this.#fold();
    this.list.children[SHOWN_AT_ONCE].querySelector("a")?.focus();
  }

  async #loadWhole(event) {
    return (await oneEvent(this.run.id, event.seq, this.run.signal)) ?? event;
  }

  #item(event) {
    const { text, more, code } = reason(event.result);
    const to = (params) => `#/tasks/${this.run.id}?${new URLSearchParams(params)}`;
    const cell = to({ tab: "hosts", host: event.host, seq: event.seq });
    const lines = to({ tab: "output", at: `${event.output_start}-${event.output_end}` });
    const what = h("span", { class: "failure-task" }, h("bdi", {}, event.task || "play task"), event.module ? h("code", {}, ` ${event.module}`) : null);
    const links = [h("a", { href: cell, "data-stay": true }, "Result")];
    if (event.output_end > event.output_start) links.push(h("a", { href: lines, "data-stay": true }, "Output"));
    const head = [verdictBadge(event.verdict), h("bdi", { class: "failure-host" }, event.host), what, code === null ? null : h("span", { class: "hint" }, `rc ${code}`), h("span", { class: "row failure-links" }, links)];
    const short = text.split("\n", SHORT_LINES).join("\n").slice(0, SHORT_CHARACTERS);
    const isCut = short.length < text.length;
    const whole = [isCut ? text : "", more].filter(Boolean).join("\n\n");
    const rest = whole ? h("details", {}, h("summary", {}, isCut ? "All of it" : "What it printed"), h("pre", {}, whole)) : null;
    return h("li", { class: "failure" }, h("div", { class: "row failure-head" }, head), h("p", { class: "failure-text" }, isCut ? `${short} …` : short), rest);
  }

  #andMore(size) {
    const all = `#/tasks/${this.run.id}?tab=hosts&only=failures`;
    return [`… and ${(size - SHOWN_HOSTS).toLocaleString()} more: `, h("a", { href: all, "data-stay": true }, "all of them in Hosts")];
  }

  // The run never reached a host: a syntax error, a lost worker, a time limit.
  async #showWithoutHosts() {
    const { task, id, signal } = this.run;
    if (stateRow(task.state).outcome !== "bad") return;
    const lines = fromError(await lastLines(id, MOST_LINES, signal));
    const words = h("p", { class: "failure-text" }, task.description);
    const printed = lines.length ? [h("p", { class: "hint" }, "The end of its output:"), h("pre", { class: "terminal last-lines", tabindex: 0, "aria-label": "Last lines of output" }, showInvisible(lines.join("\n")))] : null;
    this.withoutHosts.hidden = false;
    replace(this.withoutHosts, h("h2", {}, "It failed before it reached a host"), words, printed);
  }
}

/** Returns the lines from the last error on; without one, the last lines. */
function fromError(lines) {
  const begin = lines.findLastIndex((line) => BEGINS.test(line));
  return begin < 0 ? lines.slice(-LAST_LINES) : lines.slice(begin);
}
