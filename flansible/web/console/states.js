// The one table of task states and the one table of verdicts on hosts: what the console shows and does for each of them.
// tests/integration/test_console_files.py holds both to flansible.models. Each has its own icon: colour is only an addition.

import { h, svg } from "./dom.js";

// phase: waiting, running or final. outcome (of final ones): good, stopped or bad; failure rates count good and bad.
// isCutOff: Ansible did not end by itself, so its last play task has no end of its own.
// tone: a class of base.css, tone-*. layer: place in the overview's stacked bars, from the bottom. icon: drawn 16 by 16.
export const STATES = {
  queued: { word: "Queued", phase: "waiting", pollSeconds: 2, tone: "neutral", icon: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zm0 2.5V8l2.5 1.5" },
  running: { word: "Running", phase: "running", pollSeconds: 5, tone: "info", icon: "M5 3l8 5-8 5z" },
  succeeded: { word: "Succeeded", phase: "final", outcome: "good", layer: 1, tone: "success", icon: "M3 8.5l3.5 3.5L13 4.5" },
  failed: { word: "Failed", phase: "final", outcome: "bad", layer: 6, tone: "danger", icon: "M4 4l8 8M12 4l-8 8" },
  canceled: { word: "Canceled", phase: "final", outcome: "stopped", isCutOff: true, layer: 2, tone: "neutral", icon: "M3.5 3.5h9v9h-9z" },
  timed_out: { word: "Timed out", phase: "final", outcome: "bad", isCutOff: true, layer: 3, tone: "warning", icon: "M4 2.5h8L8 8l4 5.5H4L8 8z" },
  lost: { word: "Lost", phase: "final", outcome: "bad", isCutOff: true, layer: 4, tone: "offline", icon: "M5.5 6a2.5 2.5 0 1 1 3.5 2.3c-.7.4-1 .8-1 1.7M8 12.8v.4" },
  error: { word: "Error", phase: "final", outcome: "bad", isCutOff: true, layer: 5, tone: "danger", icon: "M8 2l6.5 11.5h-13zM8 6.5v3.2M8 11.6v.4" },
};

// gravity: of several results in one cell the gravest is shown. bar: place in the bar of counts, from the left.
export const VERDICTS = {
  ok: { isBad: false, gravity: 2, bar: 1, tone: "success", icon: "M3 8.5l3.5 3.5L13 4.5" },
  changed: { isBad: false, gravity: 3, bar: 2, tone: "warning", icon: "M2 8a6 6 0 0 1 10.5-4M14 8a6 6 0 0 1-10.5 4M12.5 1.5V4H10M3.5 14.500V12H6" },
  failed: { isBad: true, gravity: 6, bar: 6, tone: "danger", icon: "M4 4l8 8M12 4l-8 8" },
  unreachable: { isBad: true, gravity: 7, bar: 7, tone: "offline", icon: "M2 8h3M11 8h3M6.500 4.500l3 7M9.500 4.500l-3 7" },
  skipped: { isBad: false, gravity: 1, bar: 3, tone: "neutral", icon: "M3 4l4 4-4 4M9 4l4 4-4 4" },
  rescued: { isBad: false, gravity: 5, bar: 4, tone: "info", icon: "M8 3v10M3 8h10" },
  ignored: { isBad: false, gravity: 4, bar: 5, tone: "neutral", icon: "M3 8h10" },
};

// A success that did nothing on any host.
const EMPTY_SUCCESS = { tone: "warning", icon: "M8 2l6.5 11.5h-13zM8 6.5v3.2M8 11.6v.4" };
const UNKNOWN = { phase: "running", tone: "neutral", icon: STATES.lost.icon };

/** The names of a table's rows that pass `test`, ordered by a column. */
export function namesWhere(table, test, column = null) {
  const names = Object.keys(table).filter((name) => test(table[name]));
  return column ? names.sort((a, b) => table[a][column] - table[b][column]) : names;
}

export const BAD_VERDICTS = namesWhere(VERDICTS, (row) => row.isBad);
const BY_GRAVITY = namesWhere(VERDICTS, () => true, "gravity").reverse();
const BAR_ORDER = namesWhere(VERDICTS, () => true, "bar");

/** The row of a state; a state that is newer than this page counts as running. */
export function stateRow(state) {
  return STATES[state] ?? { word: state, ...UNKNOWN };
}

export function isFinal(task) {
  return stateRow(task.state).phase === "final";
}

export function isRunning(task) {
  return stateRow(task.state).phase === "running";
}

export function isBad(verdict) {
  return VERDICTS[verdict]?.isBad ?? false;
}

/** The gravest verdict of several results. */
export function gravest(verdicts) {
  return BY_GRAVITY.find((verdict) => verdicts.includes(verdict)) ?? "ok";
}

/** The verdict on one item of a loop, from the flags that Ansible sets in its result. */
export function verdictOfItem(item) {
  return ["unreachable", "failed", "skipped", "changed"].find((flag) => item[flag]) ?? "ok";
}

/** The class that sets the colour of a state or verdict. */
export function toneOf(row) {
  return `tone-${row?.tone ?? UNKNOWN.tone}`;
}

export function icon(row = UNKNOWN) {
  return svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true", width: 16, height: 16 }, svg("path", { d: row.icon }));
}

/** A task's state with its icon, word and colour. */
export function stateBadge({ state, warning }) {
  const row = { ...stateRow(state), ...(warning ? EMPTY_SUCCESS : {}) };
  return h("span", { class: `badge ${toneOf(row)}`, "data-state": state }, icon(row), row.word);
}

export function verdictBadge(verdict, text = verdict) {
  return h("span", { class: `badge ${toneOf(VERDICTS[verdict])}` }, icon(VERDICTS[verdict]), text);
}

/** How far a running task is: `{share, text}`, as compared with the last successful run of its playbook; share null:
 * nothing to compare with. null for tasks that do not run. name: of the play task that started last. */
export function progressOf(task, name = task.play_task) {
  const { kind, play_task_count: count, expected_play_tasks: expected } = task;
  if (!isRunning(task) || !count) return null;
  const isComparable = kind === "playbook" && expected >= count;
  const total = isComparable ? ` of about ${expected.toLocaleString()}` : "";
  const place = kind === "playbook" ? `Play task ${count.toLocaleString()}${total}` : "";
  return { share: isComparable ? (count - 0.5) / expected : null, text: [place, name].filter(Boolean).join(": ") };
}

/** The counts of results as one bar, filled up to `share` of it, and as text for screen readers. */
export function countsBar(counts, share = 1) {
  const parts = BAR_ORDER.filter((verdict) => counts?.[verdict] > 0);
  const total = parts.reduce((sum, verdict) => sum + counts[verdict], 0);
  if (!total) return h("span", { class: "bar" });
  let x = 0;
  const pieces = parts.map((verdict) => {
    const width = Math.max(2, (100 * counts[verdict]) / total);
    const piece = svg("rect", { class: `fill ${toneOf(VERDICTS[verdict])}`, x, y: 0, width, height: 8 });
    x += width;
    return piece;
  });
  const words = parts.map((verdict) => `${counts[verdict]} ${verdict}`).join(", ");
  const drawing = svg("svg", { viewBox: `0 0 ${x / share} 8`, preserveAspectRatio: "none", "aria-hidden": "true" }, pieces);
  return h("span", { class: "bar", role: "img", "aria-label": words, title: words }, drawing);
}
