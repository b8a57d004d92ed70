// Charts as inline SVG, redrawn when their width changes, with axes, title, description, and the same data as a table.

import { h, newId, replace, svg } from "./dom.js";

const LEFT = 44;
const RIGHT = 8;
const TOP = 12;
const BOTTOM = 40;
const LABEL_PX = 58;

/** Creates a figure that redraws when its width or data change: `figure.show(data)`.
 * draw(width, data): an svg element; table(data): `{heads, rows}`, the same data as cells. */
export function figure(draw, table, signal) {
  const place = h("div", { class: "chart" });
  const cells = h("div", { class: "scroll" });
  const element = h("figure", {}, place, h("details", {}, h("summary", {}, "As a table"), cells));
  let data = null;
  let width = 0;
  const redraw = () => data && width && replace(place, draw(width, data));
  const watch = new ResizeObserver(([entry]) => {
    const found = Math.floor(entry.contentRect.width);
    if (found !== width) {
      width = found;
      redraw();
    }
  });
  watch.observe(place);
  signal.addEventListener("abort", () => watch.disconnect());
  const show = (given) => {
    data = given;
    redraw();
    replace(cells, tableOf(table(data)));
  };
  return { element, show };
}

function tableOf({ heads, rows }) {
  const cell = (value, index) => h(index ? "td" : "th", index ? { class: "number" } : { scope: "row" }, String(value));
  const top = heads.map((head, index) => h("th", { scope: "col", class: index ? "number" : null }, head));
  const body = rows.map((row) => h("tr", {}, row.map(cell)));
  return h("table", {}, h("thead", {}, h("tr", {}, top)), h("tbody", {}, body));
}

/** Draws one bar per label, stacked from `[{state, tone, values}]`, bottom first. tips: the tooltip of each bar. */
export function stackedBars(width, { title, description, labels, tips, parts, height = 230, unit }) {
  const sums = labels.map((_, index) => parts.reduce((sum, part) => sum + part.values[index], 0));
  const axes = drawAxes(width, height, labels, roundScale(Math.max(...sums, 1), 4, 1), unit, String);
  const barWidth = Math.max(1, axes.step * 0.76);
  const columns = labels.map((_, index) => {
    let below = 0;
    const pieces = parts.map(({ state, tone, values }) => {
      const from = axes.y(below);
      below += values[index];
      const [x, y] = [axes.x(index) - barWidth / 2, axes.y(below)];
      return from > y && svg("rect", { class: `fill ${tone}`, "data-state": state, x, y, width: barWidth, height: from - y });
    });
    const [left, fullHeight] = [axes.x(index) - axes.step / 2, axes.ground - TOP];
    const whole = svg("rect", { class: "hover-area", x: left, y: TOP, width: axes.step, height: fullHeight });
    return svg("g", { class: "column" }, svg("title", {}, tips[index]), whole, pieces);
  });
  return drawChart(width, height, title, description, hatchPattern(), axes.element, columns);
}

/** Draws a line through the values; null has no point. format(value): the label of the y axis. */
export function line(width, { title, description, labels, tips, values, height = 130, unit, format }) {
  const known = values.filter((value) => value !== null);
  const axes = drawAxes(width, height, labels, roundScale(Math.max(...known, 0.1), 2, 0.01), unit, format);
  const points = values.flatMap((value, index) => (value === null ? [] : [[axes.x(index), axes.y(value), tips[index]]]));
  const path = points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const dots = points.map(([x, y, tip]) => svg("circle", { class: "dot", cx: x, cy: y, r: 3 }, svg("title", {}, tip)));
  return drawChart(width, height, title, description, axes.element, path && svg("path", { class: "line", d: path }), dots);
}

/** Draws how much of `most` is reached. Hidden from screen readers: the text beside it says the same. */
export function meter(value, most, tone) {
  const width = most ? Math.min(100, (100 * value) / most) : 0;
  const used = svg("rect", { class: `fill ${tone}`, x: 0, y: 0, width, height: 8 });
  const drawn = svg("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none" }, used);
  return h("span", { class: "bar", "aria-hidden": "true" }, drawn);
}

function drawChart(width, height, title, description, ...children) {
  const [name, about] = [newId("chart"), newId("chart")];
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-labelledby": `${name} ${about}` },
    svg("title", { id: name }, title),
    svg("desc", { id: about }, description),
    children,
  );
}

/** Defines a hatch pattern: failed runs are recognized without seeing red. */
function hatchPattern() {
  const under = svg("rect", { class: "hatch-background", width: 6, height: 6 });
  const stripes = svg("path", { class: "hatch-lines", d: "M-1 1l2-2M0 6l6-6M5 7l2-2" });
  const attributes = { id: "hatched", width: 6, height: 6, patternUnits: "userSpaceOnUse" };
  return svg("defs", {}, svg("pattern", attributes, under, stripes));
}

/** Draws axes and labels; returns x(index), y(value), the step between two labels, and the y of the x axis. */
function drawAxes(width, height, labels, { top, step: tick }, unit, format) {
  const ground = height - BOTTOM;
  const step = (width - LEFT - RIGHT) / labels.length;
  const x = (index) => LEFT + step * (index + 0.5);
  const y = (value) => ground - ((ground - TOP) * value) / top;
  const lines = [];
  for (let value = 0; value <= top * 1.001; value += tick) {
    lines.push(svg("path", { class: value ? "grid" : "axis", d: `M${LEFT} ${y(value)}H${width - RIGHT}` }));
    lines.push(svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)));
  }
  const every = Math.max(1, Math.ceil(LABEL_PX / step));
  const last = labels.length - 1;
  const isNamed = (index) => (last - index) % every === 0 && x(index) > LEFT + 12;
  const named = (index) => ({ x: Math.min(x(index), width - 22), y: ground + 16, "text-anchor": "middle" });
  const words = labels.map((label, index) => isNamed(index) && svg("text", named(index), label));
  const name = svg("text", { class: "unit", x: LEFT, y: height - 4 }, unit);
  const element = svg("g", { class: "frame", "aria-hidden": "true" }, lines, words, name);
  return { element, x, y, step, ground };
}

/** Returns the axis' end, a round number not below `most`, and its steps, not smaller than `least`. */
function roundScale(most, wanted, least) {
  const power = 10 ** Math.floor(Math.log10(most / wanted));
  const round = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size * wanted >= most);
  const step = Math.max(round, least);
  return { top: step * Math.ceil(most / step - 1e-9), step };
}
