// How states, verdicts, times and counts look: a shape and a word for each, colour only beside them.

import { h, svg } from "./dom.js";

export const STATES = {
  queued: "Queued",
  running: "Running",
  succeeded: "Succeeded",
  failed: "Failed",
  canceled: "Canceled",
  timed_out: "Timed out",
  lost: "Lost",
  error: "Error",
};
export const FINAL = new Set(["succeeded", "failed", "canceled", "timed_out", "lost", "error"]);
export const VERDICTS = {
  ok: "ok",
  changed: "changed",
  failed: "failed",
  unreachable: "unreachable",
  skipped: "skipped",
  rescued: "rescued",
  ignored: "ignored",
};

// Drawn in a square of 16, so that each can be told from the others without its colour.
const SHAPES = {
  queued: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zm0 2.5V8l2.5 1.5",
  running: "M5 3l8 5-8 5z",
  succeeded: "M3 8.5l3.5 3.5L13 4.5",
  failed: "M4 4l8 8M12 4l-8 8",
  canceled: "M3.5 3.5h9v9h-9z",
  timed_out: "M4 2.5h8L8 8l4 5.5H4L8 8z",
  lost: "M5.5 6a2.5 2.5 0 1 1 3.5 2.3c-.7.4-1 .8-1 1.7M8 12.8v.4",
  error: "M8 2l6.5 11.5h-13zM8 6.5v3.2M8 11.6v.4",
  ok: "M3 8.5l3.5 3.5L13 4.5",
  changed: "M2 8a6 6 0 0 1 10.5-4M14 8a6 6 0 0 1-10.5 4M12.5 1.5V4H10M3.5 14.500V12H6",
  unreachable: "M2 8h3M11 8h3M6.500 4.500l3 7M9.500 4.500l-3 7",
  skipped: "M3 4l4 4-4 4M9 4l4 4-4 4",
  rescued: "M8 3v10M3 8h10",
  ignored: "M3 8h10",
};

export function shape(word) {
  const path = svg("path", { d: SHAPES[word] ?? SHAPES.lost });
  return svg("svg", { class: "shape", viewBox: "0 0 16 16", "aria-hidden": "true", width: 16, height: 16 }, path);
}

/** A state as people read it: shape, word, colour. */
export function stateMark(state) {
  return h("span", { class: `mark state-${state}` }, shape(state), STATES[state] ?? state);
}

export function verdictMark(verdict, text = VERDICTS[verdict] ?? verdict) {
  return h("span", { class: `mark verdict-${verdict}` }, shape(verdict), text);
}

/** "850 ms", "12.3 s", "4 min 05 s", "2 h 03 min". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "";
  if (seconds < 0.9995) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/** As `duration`, in whole seconds: for what is counted while one looks at it. */
export function elapsed(seconds) {
  return seconds < 60 ? `${Math.floor(seconds)} s` : duration(seconds);
}

/** Seconds a task has run, or ran; null while it waits. */
export function runSeconds(task, now = Date.now()) {
  if (!task.started_at) return null;
  return Math.max(0, (task.finished_at ? Date.parse(task.finished_at) : now) - Date.parse(task.started_at)) / 1000;
}

/** A <time> with the moment in local time, and the exact one for those who ask. */
export function moment(iso) {
  if (!iso) return "";
  const date = new Date(iso);
  const isToday = date.toDateString() === new Date().toDateString();
  const clock = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const day = date.toLocaleDateString([], { month: "short", day: "numeric" });
  return h("time", { datetime: iso, title: date.toString() }, isToday ? clock : `${day}, ${clock}`);
}

export function plural(count, word, words = `${word}s`) {
  return `${count.toLocaleString()} ${count === 1 ? word : words}`;
}

const BAR = ["ok", "changed", "skipped", "rescued", "ignored", "failed", "unreachable"];

/** Counts of results as one bar, and in words for those who do not see it. */
export function countsBar(counts) {
  const parts = BAR.filter((word) => counts?.[word] > 0);
  const total = parts.reduce((sum, word) => sum + counts[word], 0);
  if (!total) return h("span", { class: "bar bar-empty" });
  let x = 0;
  const pieces = parts.map((word) => {
    const width = Math.max(2, (100 * counts[word]) / total);
    const piece = svg("rect", { class: `fill-${word}`, x, y: 0, width, height: 8 });
    x += width;
    return piece;
  });
  const words = parts.map((word) => `${counts[word]} ${VERDICTS[word]}`).join(", ");
  const drawing = svg("svg", { viewBox: `0 0 ${x} 8`, preserveAspectRatio: "none", "aria-hidden": "true" }, pieces);
  return h("span", { class: "bar", role: "img", "aria-label": words, title: words }, drawing);
}

function two(number) {
  return String(number).padStart(2, "0");
}
