// The rows of the list, newest first. They are moved as little as possible, so that focus and scroll position stay.

import { h } from "../../dom.js";
import { isFinal } from "../../states.js";
import { cell, COLUMNS, TaskRow } from "./task_row.js";

export class TaskTable {
  constructor() {
    this.rows = new Map(); // task_id -> TaskRow
    this.body = h("div", { role: "rowgroup", class: "task-body" });
    const heads = Object.entries(COLUMNS).map(([name, word]) => cell(name, "columnheader", word));
    const names = h("div", { class: "task task-head", role: "row" }, heads);
    const head = h("div", { class: "task-top", role: "rowgroup" }, names);
    this.element = h("div", { class: "tasks", role: "table", "aria-label": "Tasks, newest first" }, head, this.body);
  }

  get size() {
    return this.rows.size;
  }

  has(taskId) {
    return this.rows.has(taskId);
  }

  update(task) {
    this.rows.get(task.task_id).update(task);
  }

  /** Shows exactly these tasks; withTail: keeps the rows that are older than the last of them. */
  show(tasks, withTail = false) {
    const wanted = new Set(tasks.map((task) => task.task_id));
    const oldest = tasks.at(-1)?.submitted_at;
    for (const [taskId, row] of this.rows) {
      if (!wanted.has(taskId) && !(withTail && row.task.submitted_at < oldest)) this.remove(taskId);
    }
    let place = this.body.firstElementChild;
    for (const task of tasks) {
      const row = this.row(task);
      if (row.element === place) place = place.nextElementSibling;
      else this.body.insertBefore(row.element, place);
    }
  }

  append(tasks) {
    // A task that is there already came by the stream and has its place.
    const unknown = tasks.filter((task) => !this.rows.has(task.task_id));
    this.body.append(...unknown.map((task) => this.row(task).element));
  }

  insert(task) {
    let next = this.body.firstElementChild;
    while (next && this.taskOf(next).submitted_at > task.submitted_at) next = next.nextElementSibling;
    this.body.insertBefore(this.row(task).element, next);
  }

  remove(taskId) {
    const row = this.rows.get(taskId);
    if (!row) return;
    if (row.element.contains(document.activeElement)) this.neighbourOf(row.element)?.querySelector("a").focus();
    row.element.remove();
    this.rows.delete(taskId);
  }

  /** Whether the task is older than all that are shown. */
  isBelow(task) {
    const last = this.body.lastElementChild;
    return last !== null && task.submitted_at < this.taskOf(last).submitted_at;
  }

  tick() {
    for (const row of this.rows.values()) if (!isFinal(row.task)) row.tick();
  }

  row(task) {
    const known = this.rows.get(task.task_id);
    if (known) known.update(task);
    else this.rows.set(task.task_id, new TaskRow(task));
    return this.rows.get(task.task_id);
  }

  taskOf(element) {
    return this.rows.get(element.dataset.task).task;
  }

  neighbourOf(element) {
    return element.nextElementSibling ?? element.previousElementSibling;
  }
}
