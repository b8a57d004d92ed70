// Durations, times and counts as text, and text as it is displayed.

import { h } from "./dom.js";

// Control characters, and those that change the direction of text: a line must not be displayed as a different one.
const UNSEEN = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** "850 ms", "12.3 s", "4 min 05 s", "2 h 03 min". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "";
  if (seconds < 0.9995) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/** Like `duration`, in whole seconds: for a counter that is updated every second. */
export function elapsed(seconds) {
  return seconds < 60 ? `${Math.floor(seconds)} s` : duration(seconds);
}

/** Seconds since the task's start, or from its start to its end; null before it has started. */
export function runSeconds(task, now = Date.now()) {
  if (!task.started_at) return null;
  return Math.max(0, (task.finished_at ? Date.parse(task.finished_at) : now) - Date.parse(task.started_at)) / 1000;
}

/** Formats a time in the local time zone, as a <time> whose tooltip is exact. */
export function moment(iso) {
  if (!iso) return "";
  const date = new Date(iso);
  const isToday = date.toDateString() === new Date().toDateString();
  const clock = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const year = date.getFullYear() === new Date().getFullYear() ? undefined : "numeric";
  const day = date.toLocaleDateString([], { month: "short", day: "numeric", year });
  // Where there is little room, the line is broken between the two.
  const text = isToday ? unbroken(clock) : `${unbroken(day)}, ${unbroken(clock)}`;
  return h("time", { datetime: iso, title: date.toString() }, text);
}

export function plural(count, word, words = `${word}s`) {
  return `${count.toLocaleString()} ${count === 1 ? word : words}`;
}

/** "web1, web2 and 3 more". */
export function listed(names, most) {
  const more = names.length - most;
  return `${names.slice(0, most).join(", ")}${more > 0 ? ` and ${more.toLocaleString()} more` : ""}`;
}

function unbroken(text) {
  return text.replaceAll(" ", "\u00a0");
}

function two(number) {
  return String(number).padStart(2, "0");
}

/** Replaces invisible and direction-changing characters by visible symbols of the same length. */
export function showInvisible(text) {
  return text.replace(UNSEEN, (one) => {
    const code = one.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return code < 0xa0 ? "\u2421" : "\u21c4";
  });
}
