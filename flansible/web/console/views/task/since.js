// On the page of a failed task: since when the same fails, and what is different from the last run that succeeded.

import { get } from "../../api.js";
import { h, replace } from "../../dom.js";
import { listed, moment, plural } from "../../format.js";
import { stateRow } from "../../states.js";

const SHOWN_FIELDS = 4;
const MOST_HOSTS = 50;

export class Since {
  constructor(run) {
    this.run = run;
    this.element = h("p", { class: "panel since", hidden: true });
  }

  /** Asks once, when the task has failed. */
  async update() {
    const { task, id, signal } = this.run;
    if (this.isAsked || stateRow(task.state).outcome !== "bad" || task.output_expired_at) return;
    this.isAsked = true;
    let found;
    try {
      found = await get("api/compare", { task: id, limit: MOST_HOSTS, if_any: true }, signal);
    } catch {
      return; // an addition: what is wrong with the service is said elsewhere
    }
    if (found === null) return;
    const { other, failures_between: failures } = found;
    const link = h("a", { href: `#/tasks/${encodeURIComponent(other.task_id)}`, title: other.summary }, moment(other.finished_at));
    const compare = h("a", { href: `#/compare?${new URLSearchParams({ task: id, with: other.task_id })}` }, "Compare");
    const words = failures ? `${plural(failures + 1, "failure")} since ` : "First failure since ";
    replace(this.element, words, link, `; ${differences(found)}. `, compare);
    this.element.hidden = false;
  }
}

function differences({ request, hosts, next_after: more }) {
  const words = [];
  if (request.length) words.push(listed(request.map((one) => one.field), SHOWN_FIELDS));
  if (hosts.length) words.push(`results on ${more ? "at least " : ""}${plural(hosts.length, "host")}`);
  return words.length ? `differs in ${words.join("; ")}` : "nothing differs in request and results";
}
