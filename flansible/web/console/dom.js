// Elements made by hand. Text is only ever put in as text: what a host or a playbook is called can be no markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. attributes: `onclick` and the like are listeners, `true` is an empty attribute, null and false are left
 * out. children: nodes, text, arrays of them; null and false are left out. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** As `h`, for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Put these in the place of all that is in the element. */
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

let count = 0;

/** An id no other element has: for labels. */
export function newId(word) {
  count += 1;
  return `${word}-${count}`;
}

/** The console's view of a fault: what is wrong, and the fields. */
export function faultBox(error) {
  const fields = (error.errors ?? []).map((one) => h("li", {}, one.field ? h("code", {}, one.field) : null, " ", one.message));
  return h(
    "div",
    { class: "error-box", role: "alert" },
    h("p", {}, error.message || String(error)),
    fields.length ? h("ul", {}, fields) : null,
  );
}

/** Say something for some seconds, to screen readers too. */
export function notice(text) {
  const place = document.getElementById("notice");
  replace(place, h("p", {}, text));
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => replace(place), 6000);
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    notice(`${what} copied`);
  } catch {
    notice("The browser does not let the page copy: select the text instead");
  }
}
