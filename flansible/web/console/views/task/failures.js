// What failed, on top of the page: for each host the first play task that did, and why.

import { get } from "../../api.js";
import { h, replace } from "../../dom.js";
import { plural } from "../../format.js";
import { BAD_VERDICTS, isBad, stateRow, verdictBadge } from "../../states.js";
import { oneEvent } from "./events.js";
import { lastLines } from "./feed.js";
import { reason } from "./reason.js";
import { visible } from "./text.js";

const SHOWN_HOSTS = 50;
const SHOWN_AT_ONCE = 4;
const FEW = 6; // are shown without asking
const SHORT_LINES = 6;
const SHORT_CHARACTERS = 600;
const PAGE = 5000;
const LAST_LINES = 15;
const MOST_LINES = 40;
// How Ansible begins to say why it gives up; what follows belongs to it.
const BEGINS = /^(\[ERROR\]|ERROR)/;

/** The hosts that have failed, in the order they did: name -> their first failing event, without its result. */
export class Failures {
  constructor(run) {
    this.run = run;
    this.hosts = new Map();
    this.after = 0;
    this.list = h("ul", { class: "failures" });
    this.heading = h("h2", {});
    this.rest = h("p", { class: "hint" });
    this.others = h("button", { type: "button", hidden: true, onclick: () => this.#showOthers() });
    this.box = h("section", { class: "panel failure-box", "aria-label": "Failures", hidden: true }, this.heading, this.list, this.others, this.rest);
    this.plain = h("section", { class: "panel failure-box", "aria-label": "Why it failed", hidden: true });
    this.element = h("div", {}, this.box, this.plain);
  }

  /** Look for those that have failed since; one look at a time. */
  async look() {
    if (this.isLooking) return (this.isStale = true);
    this.isLooking = true;
    try {
      do {
        this.isStale = false;
        if (this.#mayBeSome()) await this.#read();
        await this.#show();
      } while (this.isStale && !this.run.signal.aborted);
    } finally {
      this.isLooking = false;
    }
    return true;
  }

  // To look through the events of a large run for nothing would take seconds.
  #mayBeSome() {
    const { counts } = this.run.task;
    return !counts || BAD_VERDICTS.some((verdict) => counts[verdict] > 0);
  }

  async #read() {
    const { id, signal, events, task } = this.run;
    // What an attempt that was lost has done is no failure of this one.
    if (task.attempt > 1) await (this.run.isFinal ? events.load() : null);
    if (events.attemptStart > this.after) this.#begin(events.attemptStart);
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

  #begin(after) {
    this.after = after;
    this.hosts.clear();
    replace(this.list);
  }

  async #show() {
    const { size } = this.hosts;
    this.box.hidden = size === 0;
    this.heading.textContent = `Failed on ${plural(size, "host")}`;
    const first = [...this.hosts.values()].slice(this.list.childElementCount, SHOWN_HOSTS);
    const whole = await Promise.all(first.map((event) => this.#whole(event)));
    this.list.append(...whole.map((event) => this.#item(event)));
    this.#fold();
    replace(this.rest, size > SHOWN_HOSTS ? this.#andMore(size) : null);
    this.rest.hidden = size <= SHOWN_HOSTS;
    if (!size && this.run.isFinal) await this.#showWithoutHosts();
  }

  // What is below must not be pushed out of sight by many that failed for one reason.
  #fold() {
    const items = [...this.list.children];
    const isFolded = !this.isUnfolded && items.length > FEW;
    items.slice(SHOWN_AT_ONCE).forEach((item) => (item.hidden = isFolded));
    this.others.hidden = !isFolded;
    this.others.textContent = `Show ${items.length - SHOWN_AT_ONCE} more`;
  }

  #showOthers() {
    this.isUnfolded = true;
    this.#fold();
    this.list.children[SHOWN_AT_ONCE].querySelector("a")?.focus();
  }

  async #whole(event) {
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

  // It never came as far as a host: a syntax error, a lost worker, no time.
  async #showWithoutHosts() {
    const { task, id, signal } = this.run;
    if (stateRow(task.state).outcome !== "bad") return;
    const lines = fromError(await lastLines(id, MOST_LINES, signal));
    const words = h("p", { class: "failure-text" }, task.description);
    const printed = lines.length ? [h("p", { class: "hint" }, "The end of its output:"), h("pre", { class: "terminal last-lines", tabindex: 0, "aria-label": "Last lines of output" }, visible(lines.join("\n")))] : null;
    this.plain.hidden = false;
    replace(this.plain, h("h2", {}, "It failed before any host did"), words, printed);
  }
}

/** Of the last lines, those from its last error on; without one, the last of them. */
function fromError(lines) {
  const begin = lines.findLastIndex((line) => BEGINS.test(line));
  return begin < 0 ? lines.slice(-LAST_LINES) : lines.slice(begin);
}
