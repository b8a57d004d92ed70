// One task as a row of the list. It is updated in place, so that focus and scroll position stay.

import { h, replace } from "../../dom.js";
import { duration, elapsed, moment, plural, runSeconds } from "../../format.js";
import { BAD_VERDICTS, countsBar, isFinal, progressOf, stateBadge, toneOf, VERDICTS } from "../../states.js";

// Grid area -> heading. tasks.css places the areas for wide and narrow pages.
export const COLUMNS = { state: "State", what: "What", hosts: "Hosts", user: "User", started: "Started", duration: "Duration", results: "Results" };

export class TaskRow {
  constructor(task) {
    this.link = h("a", { href: `#/tasks/${encodeURIComponent(task.task_id)}` });
    this.details = h("span", { class: "secondary" });
    this.cells = Object.fromEntries(Object.keys(COLUMNS).map((name) => [name, cell(name, "cell")]));
    this.cells.what.append(this.link, this.details);
    this.element = h("div", { class: "task", role: "row", "data-task": task.task_id }, Object.values(this.cells));
    this.shown = {};
    this.update(task);
  }

  update(task) {
    this.task = task;
    this.replaceIfChanged("state", [task.state, task.warning], () => stateBadge(task));
    this.updateWhat(task);
    this.replaceIfChanged("hosts", [task.hosts, task.inventory], () => hosts(task));
    this.replaceIfChanged("user", task.user, () => task.user);
    this.replaceIfChanged("started", task.started_at ?? task.submitted_at, () => started(task));
    const shown = [task.state, task.counts, task.host_count, task.warning, task.play_task_count];
    this.replaceIfChanged("results", shown, () => results(task));
    this.tick();
  }

  /** Updates the duration. */
  tick() {
    const seconds = runSeconds(this.task);
    const text = seconds === null ? "" : isFinal(this.task) ? duration(seconds) : elapsed(seconds);
    this.replaceIfChanged("duration", text, () => text);
  }

  updateWhat(task) {
    const title = task.playbook || task.module || task.kind;
    const summary = task.summary.startsWith(`${task.user}: `) ? task.summary.slice(task.user.length + 2) : task.summary;
    const about = task.playbook ? (progressOf(task)?.text ?? summary) : summary;
    if (this.link.textContent !== title) this.link.textContent = title;
    if (this.details.textContent !== about) this.details.textContent = about;
    this.link.title = task.summary;
  }

  replaceIfChanged(name, value, build) {
    const key = JSON.stringify(value);
    if (this.shown[name] === key) return;
    this.shown[name] = key;
    replace(this.cells[name], build());
  }
}

export function cell(name, role, text = null) {
  return h("div", { class: `cell cell-${name}`, role }, text);
}

function hosts(task) {
  const inventory = (task.inventory ?? "")
    .split(", ")
    .map((path) => path.replace(/\/+$/, "").split("/").pop())
    .join(", ");
  if (!task.hosts) return inventory || "";
  return [h("span", {}, task.hosts), " ", inventory ? h("span", { class: "secondary" }, `in ${inventory}`) : null];
}

function started(task) {
  return task.started_at ? moment(task.started_at) : [h("span", { class: "secondary" }, "since"), " ", moment(task.submitted_at)];
}

function results(task) {
  if (task.warning) return h("span", { class: "tone-warning" }, task.warning);
  const progress = progressOf(task);
  if (!task.host_count && !Object.values(task.counts ?? {}).some(Boolean)) return "";
  const bad = BAD_VERDICTS.filter((verdict) => task.counts?.[verdict]).map((verdict) =>
    h("span", { class: toneOf(VERDICTS[verdict]) }, `${task.counts[verdict]} ${verdict}`),
  );
  // Failures first: where there is no room, the end is cut off.
  const words = [...bad, plural(task.host_count, "host")].flatMap((word) => [" · ", word]).slice(1);
  const bar = progress?.share === null ? null : countsBar(task.counts, progress?.share);
  return [bar, h("span", { class: "secondary" }, words)];
}
