// The list of tasks, newest first, as it is and as it changes.

import { get, session, stream } from "../../api.js";
import { faultBox, h, replace } from "../../dom.js";
import { plural } from "../../format.js";
import { setParams } from "../../router.js";
import { FilterForm, fits, readFilters } from "./task_filters.js";
import { TaskTable } from "./task_table.js";

const PAGE = 50;
const MOST_AT_ONCE = 500; // as many are asked for again when the list is loaded anew
const RELOAD_MS = 3000;

export async function show(root, route) {
  const list = new TaskList(readFilters(route.params, session.sees_all), route.signal);
  replace(root, list.elements);
  list.watch();
  await list.load();
}

class TaskList {
  constructor(filters, signal) {
    this.filters = filters;
    this.signal = signal;
    this.waiting = new Map(); // new tasks, while somebody reads further down
    this.held = null; // what changes while a list is loaded
    this.loading = new AbortController();
    this.nextBefore = null; // where older ones begin
    this.changes = null; // up to which change the first list was true
    this.table = new TaskTable();
    const narrow = (given, isTyping) => this.narrow(given, isTyping);
    this.form = new FilterForm(filters, session.sees_all, signal, narrow);
    this.build();
  }

  build() {
    this.connection = h("span", { class: "connection" });
    this.status = h("p", { class: "visually-hidden", role: "status" });
    this.fresh = h("button", { type: "button", class: "primary new-tasks", hidden: true, onclick: () => this.showFresh(true) });
    this.older = h("button", { type: "button", class: "older-tasks", hidden: true, onclick: () => this.more() }, "Older tasks");
    this.below = h("div", { class: "list-end" });
    const launch = session.may_act ? h("a", { class: "button primary", href: "#/launch" }, "Launch") : null;
    const title = h("div", { class: "row title" }, h("h1", {}, "Tasks"), this.connection, launch);
    this.elements = [title, this.form.element, this.fresh, this.table.element, this.below, this.older, this.status];
  }

  /** What goes on besides, until the view is left. */
  watch() {
    const ticking = setInterval(() => this.table.tick(), 1000);
    this.atEnd = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && this.more(), { rootMargin: "600px" });
    this.atEnd.observe(this.older);
    const atTop = () => this.waiting.size && !this.isReading() && this.showFresh(false);
    window.addEventListener("scroll", atTop, { signal: this.signal, passive: true });
    this.signal.addEventListener("abort", () => {
      clearInterval(ticking);
      clearTimeout(this.reloading);
      this.atEnd.disconnect();
    });
  }

  narrow(filters, isTyping) {
    if (JSON.stringify(filters) === JSON.stringify(this.filters)) return;
    const isFirstLetter = isTyping && !this.wasTyping;
    this.wasTyping = isTyping;
    const gone = Object.fromEntries(Object.keys(this.filters).map((name) => [name, null]));
    this.filters = filters;
    // A word is one step back, not a step for each of its letters.
    setParams({ ...gone, ...filters }, !isTyping || isFirstLetter);
    this.load();
  }

  /** All anew, as the filters are now; what was there stays until the first page is. */
  load() {
    this.waiting.clear();
    this.table.element.setAttribute("aria-busy", "true");
    return this.fill(PAGE, (tasks, next) => {
      this.table.show(tasks);
      this.nextBefore = next;
      if (next !== null && tasks.length < PAGE) this.say("Looking for more …");
    });
  }

  /** Asked again behind what is shown. */
  reload() {
    this.reloading = undefined;
    const isWhole = this.table.size <= MOST_AT_ONCE;
    return this.fill(isWhole ? Math.max(PAGE, this.table.size) : MOST_AT_ONCE, (tasks, next, isLast) => {
      if (!isLast) return;
      this.table.show(tasks, !isWhole);
      if (isWhole) this.nextBefore = next;
    });
  }

  reloadSoon(milliseconds) {
    this.reloading ??= setTimeout(() => this.reload(), milliseconds);
  }

  async fill(wanted, onPage) {
    this.loading.abort();
    this.loading = new AbortController();
    const { signal } = this.loading;
    this.held ??= [];
    this.older.hidden = true;
    const found = [];
    try {
      await this.ask(null, wanted, signal, (tasks, next) => {
        found.push(...tasks);
        onPage(found, next, next === null || found.length >= wanted);
      });
    } catch (error) {
      this.failed(error, signal);
      return;
    }
    this.release();
    this.settle(true);
    this.follow();
  }

  release() {
    this.table.element.removeAttribute("aria-busy");
    const held = this.held ?? [];
    this.held = null;
    held.forEach((task) => this.hear(task));
  }

  async more() {
    if (this.nextBefore === null || this.older.hidden) return;
    this.older.hidden = true;
    this.say("Looking for older tasks …");
    const { signal } = this.loading;
    try {
      await this.ask(this.nextBefore, PAGE, signal, (tasks, next) => {
        this.table.append(tasks);
        this.nextBefore = next;
      });
      this.settle(true);
    } catch (error) {
      this.failed(error, signal);
    }
  }

  /** Pages until so many tasks are there or none are left: a search gives less than a page, or nothing, and goes on. */
  async ask(before, wanted, signal, onPage) {
    const either = AbortSignal.any([signal, this.signal]);
    do {
      const page = await get("api/ansibletasks", { ...this.filters, limit: wanted, before }, either);
      this.changes ??= page.changes;
      this.form.suggest(page.tasks);
      wanted -= page.tasks.length;
      before = page.next_before;
      onPage(page.tasks, before);
    } while (before !== null && wanted > 0);
  }

  failed(error, signal) {
    if (signal.aborted || this.signal.aborted || error.status === 401) return;
    this.release();
    const again = h("button", { type: "button", onclick: () => this.load() }, "Try again");
    replace(this.below, faultBox(error), again);
  }

  async follow() {
    if (this.isFollowing) return;
    this.isFollowing = true;
    const onState = (isConnected) => {
      this.connection.classList.toggle("is-live", isConnected);
      replace(this.connection, isConnected ? "Live" : "Connecting again …");
    };
    const onEvent = ({ event, data }) => {
      if (event === "reset") this.reloadSoon(0);
      else if (event === "task") this.hear(data);
    };
    try {
      await stream("api/ansibletasks", {}, { signal: this.signal, after: this.changes, onEvent, onState });
    } catch (error) {
      replace(this.connection, `Not live: ${error.message}`);
    }
  }

  /** A task has changed, or is new. */
  hear(task) {
    if (this.held) {
      this.held.push(task);
      return;
    }
    const isKnown = this.table.has(task.task_id);
    if (!fits(task, this.filters)) {
      this.table.remove(task.task_id);
      this.waiting.delete(task.task_id);
    } else if (isKnown) this.table.update(task);
    else if (this.filters.host) this.reloadSoon(RELOAD_MS);
    else if (this.nextBefore === null || !this.table.isBelow(task)) this.add(task);
    this.form.suggest([task]);
    this.settle(false);
  }

  add(task) {
    if (this.waiting.has(task.task_id) || this.isReading()) this.waiting.set(task.task_id, task);
    else this.table.insert(task);
  }

  /** Whether new rows on top would move what somebody reads. */
  isReading() {
    return this.table.element.getBoundingClientRect().top < 0;
  }

  showFresh(scrolls) {
    for (const task of this.waiting.values()) this.table.insert(task);
    this.waiting.clear();
    this.settle(false);
    if (scrolls) window.scrollTo(0, 0);
  }

  /** What stands around the rows, once they are what they are. isTold: to those who listen, too. */
  settle(isTold) {
    this.fresh.hidden = !this.waiting.size;
    if (this.waiting.size) this.fresh.textContent = plural(this.waiting.size, "new task");
    if (this.older.hidden !== (this.nextBefore === null)) {
      this.older.hidden = this.nextBefore === null;
      // Asked anew: it tells of changes alone, and who scrolls fast is at the end again before it has looked.
      this.atEnd.unobserve(this.older);
      this.atEnd.observe(this.older);
    }
    const isEmpty = !this.table.size && this.nextBefore === null && !this.waiting.size;
    this.table.element.hidden = isEmpty;
    replace(this.below, isEmpty ? this.nothing() : null);
    const more = this.nextBefore === null ? "" : ", older ones follow";
    if (isTold) this.status.textContent = isEmpty ? "No task" : plural(this.table.size, "task") + more;
  }

  say(text) {
    replace(this.below, h("p", { class: "hint" }, text));
  }

  nothing() {
    if (Object.keys(this.filters).length) {
      const exact = this.filters.playbook || this.filters.user || this.filters.host;
      return h(
        "div",
        { class: "panel empty-list" },
        h("p", {}, "No task fits these filters."),
        exact ? h("p", { class: "hint" }, "Playbook, user and host are looked for by their whole names.") : null,
        h("button", { type: "button", onclick: () => this.form.clear() }, "Clear the filters"),
      );
    }
    const launch = h("a", { class: "button primary", href: "#/launch" }, "Launch the first");
    return h("div", { class: "panel empty-list" }, h("p", {}, "No tasks yet."), session.may_act ? launch : null);
  }
}
