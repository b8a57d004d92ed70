// The list of tasks, newest first, updated live.

import { get, session, stream } from "../../api.js";
import { errorBox, h, replace } from "../../dom.js";
import { plural } from "../../format.js";
import { setParams } from "../../router.js";
import { FilterForm, isUndecided, matches, readFilters } from "./task_filters.js";
import { TaskTable } from "./task_table.js";

const PAGE = 50;
const MAX_RELOAD = 500; // a reload requests at most so many; the tail of a longer list stays as it is
const RELOAD_MS = 3000;

export async function show(root, route) {
  const list = new TaskList(readFilters(route.params), route.signal);
  replace(root, list.elements);
  list.startTimers();
  offerSearches(list.form, route.signal);
  await list.load();
}

async function offerSearches(form, signal) {
  try {
    form.offer((await get("api/searches", { limit: 1000 }, signal)).items);
  } catch {
    // The list works without them; a database that is away is shown where searches are written.
  }
}

class TaskList {
  constructor(filters, signal) {
    this.filters = filters;
    this.signal = signal;
    this.newTasks = new Map(); // not shown yet: the user has scrolled down
    this.deferred = null; // changes that arrive while the list is loading
    this.loading = new AbortController();
    this.nextBefore = null; // the page parameter for older tasks; null: there are none
    this.changes = null; // number of the last change in the first list: the stream resumes after it
    this.table = new TaskTable();
    const applyFilters = (given, isTyping) => this.applyFilters(given, isTyping);
    this.form = new FilterForm(filters, signal, applyFilters);
    this.build();
  }

  build() {
    this.connection = h("span", { class: "connection" });
    this.status = h("p", { class: "visually-hidden", role: "status" });
    this.newTasksButton = h("button", { type: "button", class: "primary new-tasks", hidden: true, onclick: () => this.showNewTasks(true) });
    this.olderButton = h("button", { type: "button", class: "older-tasks", hidden: true, onclick: () => this.loadOlder() }, "Older tasks");
    this.listEnd = h("div", { class: "list-end" });
    const launch = session.may_act ? h("a", { class: "button primary", href: "#/launch" }, "Launch") : null;
    const title = h("div", { class: "row title" }, h("h1", {}, "Tasks"), this.connection, launch);
    this.elements = [title, this.form.element, this.newTasksButton, this.table.element, this.listEnd, this.olderButton, this.status];
  }

  /** Starts what runs until the view is left: ticking durations, loading on scroll. */
  startTimers() {
    const ticking = setInterval(() => this.table.tick(), 1000);
    this.endObserver = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && this.loadOlder(), { rootMargin: "600px" });
    this.endObserver.observe(this.olderButton);
    const atTop = () => this.newTasks.size && !this.isReading() && this.showNewTasks(false);
    window.addEventListener("scroll", atTop, { signal: this.signal, passive: true });
    this.signal.addEventListener("abort", () => {
      clearInterval(ticking);
      clearTimeout(this.reloadTimer);
      this.endObserver.disconnect();
    });
  }

  applyFilters(filters, isTyping) {
    if (JSON.stringify(filters) === JSON.stringify(this.filters)) return;
    const isFirstLetter = isTyping && !this.wasTyping;
    this.wasTyping = isTyping;
    const gone = Object.fromEntries(Object.keys(this.filters).map((name) => [name, null]));
    this.filters = filters;
    // A typed word is one history entry, not one for each of its letters.
    setParams({ ...gone, ...filters }, !isTyping || isFirstLetter);
    this.load();
  }

  /** Loads the list for the current filters; the old rows stay until the first page has arrived. */
  load() {
    this.newTasks.clear();
    this.table.element.setAttribute("aria-busy", "true");
    return this.fill(PAGE, (tasks, next) => {
      this.table.show(tasks);
      this.nextBefore = next;
      if (next !== null && tasks.length < PAGE) this.showHint("Searching …");
    });
  }

  /** Loads the list again without emptying it. */
  reload() {
    this.reloadTimer = undefined;
    const isWhole = this.table.size <= MAX_RELOAD;
    return this.fill(isWhole ? Math.max(PAGE, this.table.size) : MAX_RELOAD, (tasks, next, isLast) => {
      if (!isLast) return;
      this.table.show(tasks, !isWhole);
      if (isWhole) this.nextBefore = next;
    });
  }

  reloadSoon(milliseconds) {
    this.reloadTimer ??= setTimeout(() => this.reload(), milliseconds);
  }

  async fill(wanted, onPage) {
    this.loading.abort();
    this.loading = new AbortController();
    const { signal } = this.loading;
    this.deferred ??= [];
    this.olderButton.hidden = true;
    const found = [];
    try {
      await this.loadPages(null, wanted, signal, (tasks, next) => {
        found.push(...tasks);
        onPage(found, next, next === null || found.length >= wanted);
      });
    } catch (error) {
      this.showError(error, signal);
      return;
    }
    this.applyDeferred();
    this.updateStatus(true);
    this.follow();
  }

  applyDeferred() {
    this.table.element.removeAttribute("aria-busy");
    const deferred = this.deferred ?? [];
    this.deferred = null;
    deferred.forEach((task) => this.applyChange(task));
  }

  async loadOlder() {
    if (this.nextBefore === null || this.olderButton.hidden) return;
    this.olderButton.hidden = true;
    this.showHint("Searching older tasks …");
    const { signal } = this.loading;
    try {
      await this.loadPages(this.nextBefore, PAGE, signal, (tasks, next) => {
        this.table.append(tasks);
        this.nextBefore = next;
      });
      this.updateStatus(true);
    } catch (error) {
      this.showError(error, signal);
    }
  }

  /** Requests pages until `wanted` tasks have arrived or none are left: with a search, a page may be short or empty. */
  async loadPages(before, wanted, signal, onPage) {
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

  showError(error, signal) {
    if (signal.aborted || this.signal.aborted || error.status === 401) return;
    this.applyDeferred();
    const again = h("button", { type: "button", onclick: () => this.load() }, "Try again");
    replace(this.listEnd, errorBox(error), again);
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
      else if (event === "task") this.applyChange(data);
    };
    try {
      await stream("api/ansibletasks", {}, { signal: this.signal, after: this.changes, onEvent, onState });
    } catch (error) {
      replace(this.connection, `Not live: ${error.message}`);
    }
  }

  /** Applies a change from the stream: the task is new or has changed. */
  applyChange(task) {
    if (this.deferred) {
      this.deferred.push(task);
      return;
    }
    const isKnown = this.table.has(task.task_id);
    if (!matches(task, this.filters)) {
      this.table.remove(task.task_id);
      this.newTasks.delete(task.task_id);
    } else if (isKnown) this.table.update(task);
    else if (isUndecided(this.filters)) this.reloadSoon(RELOAD_MS);
    else if (this.nextBefore === null || !this.table.isBelow(task)) this.add(task);
    this.form.suggest([task]);
    this.updateStatus(false);
  }

  add(task) {
    if (this.newTasks.has(task.task_id) || this.isReading()) this.newTasks.set(task.task_id, task);
    else this.table.insert(task);
  }

  /** Whether the user has scrolled down: new rows on top would move what they read. */
  isReading() {
    return this.table.element.getBoundingClientRect().top < 0;
  }

  showNewTasks(scrolls) {
    for (const task of this.newTasks.values()) this.table.insert(task);
    this.newTasks.clear();
    this.updateStatus(false);
    if (scrolls) window.scrollTo(0, 0);
  }

  /** Updates what surrounds the rows: buttons, empty message, status. isAnnounced: screen readers announce it. */
  updateStatus(isAnnounced) {
    this.newTasksButton.hidden = !this.newTasks.size;
    if (this.newTasks.size) this.newTasksButton.textContent = plural(this.newTasks.size, "new task");
    if (this.olderButton.hidden !== (this.nextBefore === null)) {
      this.olderButton.hidden = this.nextBefore === null;
      // Observed anew: it only reports changes, and a fast scroll can reach the end again before it has checked.
      this.endObserver.unobserve(this.olderButton);
      this.endObserver.observe(this.olderButton);
    }
    const isEmpty = !this.table.size && this.nextBefore === null && !this.newTasks.size;
    this.table.element.hidden = isEmpty;
    replace(this.listEnd, isEmpty ? this.emptyMessage() : null);
    const more = this.nextBefore === null ? "" : ", older ones follow";
    if (isAnnounced) this.status.textContent = isEmpty ? "No task" : plural(this.table.size, "task") + more;
  }

  showHint(text) {
    replace(this.listEnd, h("p", { class: "hint" }, text));
  }

  emptyMessage() {
    if (Object.keys(this.filters).length) {
      const exact = this.filters.playbook || this.filters.user || this.filters.host;
      return h(
        "div",
        { class: "panel empty-list" },
        h("p", {}, "No task matches these filters."),
        exact ? h("p", { class: "hint" }, "Playbook, user and host have to be whole names.") : null,
        h("button", { type: "button", onclick: () => this.form.clear() }, "Clear the filters"),
      );
    }
    const launch = h("a", { class: "button primary", href: "#/launch" }, "Launch the first");
    return h("div", { class: "panel empty-list" }, h("p", {}, "No tasks yet."), session.may_act ? launch : null);
  }
}
