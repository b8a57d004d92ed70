// What the list of hosts and the page of one show in the same way.

import { h } from "./dom.js";
import { moment } from "./format.js";

/** The address of a host's page. */
export function hostAddress(name, inventory) {
  return `#/hosts/${encodeURIComponent(name)}?${new URLSearchParams({ inventory })}`;
}

/** A task with its time, as a link; before: what stands before it. */
export function taskLink(task, before = null) {
  if (!task) return "";
  return [before, before ? " " : null, h("a", { href: `#/tasks/${encodeURIComponent(task.task_id)}`, title: task.summary }, moment(task.finished_at))];
}

export function inventoryName(inventory) {
  return inventory || "(Ansible's default)";
}
