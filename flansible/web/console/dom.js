// Creates DOM elements. Text is only inserted as text: the name of a host or playbook never becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/** Creates an element. attributes: `onclick` and the like are listeners, `true` is an empty attribute, null and false are
 * left out. children: nodes, text, arrays of them; null and false are left out. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Like `h`, for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Replaces the content of the element. */
export function replace(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "selected" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Focuses the first field of a form that has just been shown, unless the user has gone elsewhere meanwhile. */
export function focusFirst(form) {
  const isElsewhere = ![document.body, document.getElementById("main")].includes(document.activeElement);
  if (!isElsewhere) form.querySelector(":is(input, select, textarea, button):not(:disabled)")?.focus();
}

let count = 0;

/** Returns a unique id, for labels. */
export function newId(word) {
  count += 1;
  return `${word}-${count}`;
}

/** Shows an error: its message, and the fields it is about. */
export function errorBox(error) {
  const fields = (error.errors ?? []).map((one) => h("li", {}, one.field ? h("code", {}, one.field) : null, " ", one.message));
  return h(
    "div",
    { class: "error-box", role: "alert" },
    h("p", {}, error.message || String(error)),
    fields.length ? h("ul", {}, fields) : null,
  );
}

/** Shows a message for six seconds; screen readers announce it. */
export function notify(text) {
  const place = document.getElementById("notice");
  replace(place, h("p", {}, text));
  clearTimeout(notify.timer);
  notify.timer = setTimeout(() => replace(place), 6000);
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    notify(`${what} copied`);
  } catch {
    notify("The browser does not allow copying. Select the text instead.");
  }
}
