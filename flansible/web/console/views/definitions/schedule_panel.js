// Beside the form of a schedule: when it is due next, what became of the last times, and buttons to run, pause and skip it.

import { get, post } from "../../api.js";
import { errorBox, h, notify, replace } from "../../dom.js";
import { startOnce } from "../../start_once.js";

const SHOWN = 20;

/** Returns the panel. current: the schedule as it was read; mayChange: whether the user may. */
export function schedulePanel(current, mayChange, signal) {
  const panel = h("section", { class: "panel", "aria-label": "Times" });
  const path = `api/schedules/${encodeURIComponent(current.name)}`;
  const draw = async (schedule) => {
    const { items } = await get(`${path}/occurrences`, { limit: SHOWN }, signal);
    replace(panel, h("h2", {}, "Times"), facts(schedule), mayChange ? buttons(schedule) : null, strip(schedule.next), occurrences(items));
  };
  const change = (verb, word, body, send = post) => async () => {
    try {
      const reply = await send(`${path}/${verb}`, body);
      if (reply.task_id) location.hash = `#/tasks/${reply.task_id}`;
      else await draw(reply);
      notify(word);
    } catch (error) {
      panel.prepend(errorBox(error));
    }
  };
  const button = (word, act) => h("button", { type: "button", onclick: act }, word);
  const run = change("run", "Started", undefined, startOnce());
  const pause = () => {
    const note = prompt("Why is it paused?", "");
    return note === null ? null : change("pause", "Paused", { note })();
  };
  const buttons = (schedule) =>
    h(
      "div",
      { class: "row" },
      button("Run now", run),
      schedule.paused ? button("Resume", change("resume", "Resumed")) : button("Pause", pause),
      button("Skip the next time", change(`skip?next=${schedule.skips_left + 1}`, "It will be skipped")),
    );
  draw(current).catch((error) => signal.aborted || replace(panel, errorBox(error)));
  return panel;
}

function facts(schedule) {
  const by = schedule.paused_by ? ` by ${schedule.paused_by}` : "";
  const note = schedule.note ? `: ${schedule.note}` : "";
  const skips = schedule.skips_left ? h("p", {}, `Skips the next ${schedule.skips_left}.`) : null;
  return [h("p", {}, schedule.words), schedule.paused ? h("p", { class: "tone-warning" }, `Paused${by}${note}.`) : null, skips];
}

/** The next times, one column for each day. */
function strip(next) {
  const days = Map.groupBy(next, ({ local }) => local.slice(0, 10));
  const column = ([day, times]) => h("li", {}, h("strong", {}, day), times.map(({ local, utc }) => h("time", { datetime: utc, title: utc }, local.slice(11, 16))));
  return next.length ? h("ol", { class: "calendar-strip", "aria-label": "Next times" }, [...days].map(column)) : h("p", { class: "hint" }, "It is not due any more.");
}

function occurrences(items) {
  const row = ({ due_at: due, outcome, detail, task_id: id }) =>
    h("tr", {}, h("td", {}, new Date(due).toLocaleString()), h("td", {}, id ? h("a", { href: `#/tasks/${id}` }, outcome) : outcome), h("td", {}, detail ?? ""));
  const head = ["Due", "Outcome", ""].map((word) => h("th", { scope: "col" }, word));
  return items.length ? h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, items.map(row))) : h("p", { class: "hint" }, "It was not due yet.");
}
