// The charts of the last days: runs per day by final state, and the failure rate.

import { figure, line, stackedBars } from "../../charts.js";
import { h } from "../../dom.js";
import { plural } from "../../format.js";
import { namesWhere, STATES, toneOf } from "../../states.js";

// From the bottom of a bar to its top.
const STACK = namesWhere(STATES, (row) => row.phase === "final", "layer");

export function runsFigure(signal) {
  return figure(drawRuns, tableOfRuns, signal);
}

export function rateFigure(signal) {
  return figure(drawRate, tableOfRate, signal);
}

function countOf(day, test) {
  return namesWhere(STATES, test).reduce((sum, state) => sum + day[state], 0);
}

/** Counts the runs that ended on a day. */
export function total(day) {
  return countOf(day, (row) => row.phase === "final");
}

/** Counts the runs that ended by themselves: the base of the failure rate. */
export function notStopped(day) {
  return countOf(day, (row) => row.phase === "final" && row.outcome !== "stopped");
}

export function failures(day) {
  return countOf(day, (row) => row.outcome === "bad");
}

export function percent(part) {
  return `${(100 * part).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`;
}

function dayName(day) {
  return new Date(`${day.day}T00:00:00Z`).toLocaleDateString([], { timeZone: "UTC", day: "numeric", month: "short" });
}

function inUse(days) {
  return STACK.filter((state) => STATES[state].outcome === "good" || days.some((day) => day[state]));
}

/** Lists the states in the bars with their colours. */
export function legend(days) {
  return inUse(days).map((state) => h("li", {}, h("span", { class: `swatch ${toneOf(STATES[state])}`, "data-state": state }), STATES[state].word));
}

function words(day) {
  const parts = STACK.filter((state) => day[state]).map((state) => `${day[state]} ${STATES[state].word.toLowerCase()}`);
  return `${dayName(day)}: ${parts.join(", ") || "no runs"}`;
}

function drawRuns(width, days) {
  const all = days.reduce((sum, day) => sum + total(day), 0);
  const bad = days.reduce((sum, day) => sum + failures(day), 0);
  return stackedBars(width, {
    title: `Runs per day in the last ${days.length} days`,
    description: `${plural(all, "run")} ended, ${bad} of them went wrong.`,
    labels: days.map(dayName),
    tips: days.map(words),
    parts: inUse(days).map((state) => ({ state, tone: toneOf(STATES[state]), values: days.map((day) => day[state]) })),
    unit: "Runs that ended, by day (UTC)",
  });
}

function tableOfRuns(days) {
  const states = inUse(days);
  const rows = [...days].reverse().map((day) => [day.day, ...states.map((state) => day[state])]);
  return { heads: ["Day", ...states.map((state) => STATES[state].word)], rows };
}

function rates(days) {
  return days.map((day) => (notStopped(day) ? failures(day) / notStopped(day) : null));
}

function drawRate(width, days) {
  const values = rates(days);
  const format = (value) => `${Math.round(100 * value)} %`;
  const worst = Math.max(0, ...values.filter((value) => value !== null));
  return line(width, {
    title: `Failure rate per day in the last ${days.length} days`,
    description: `At most ${percent(worst)}. Days without a run have no point.`,
    labels: days.map(dayName),
    tips: days.map((day, index) => `${dayName(day)}: ${values[index] === null ? "no runs" : percent(values[index])}`),
    values,
    unit: "Went wrong, of runs not canceled",
    format,
  });
}

function tableOfRate(days) {
  const rows = days.map((day, index) => [day.day, rates(days)[index] === null ? "–" : percent(rates(days)[index])]);
  return { heads: ["Day", "Went wrong"], rows: rows.reverse() };
}
