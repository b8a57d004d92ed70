// Fields of the launch form: each reads and writes one field of a request, and shows what is wrong with it.

import { h, newId, replace } from "../../dom.js";

/** What the service shows in the place of a secret. */
export const MASK = "********";

/** One input with its label, hint and fault. parse(text) gives the value (undefined: nothing), or throws; format(value)
 * gives the text, or undefined for what the input cannot hold. */
export class Field {
  constructor(name, label, input, { hint = "", parse = plainText, format = onlyText, isSecret = false } = {}) {
    Object.assign(this, { name, input, parse, format, isSecret });
    const id = newId("field");
    this.fault = h("p", { class: "field-error", id: `${id}-fault`, hidden: true });
    this.hint = h("p", { class: "hint", id: `${id}-hint`, hidden: !hint }, hint);
    input.id = id;
    input.setAttribute("aria-describedby", `${id}-hint ${id}-fault`);
    input.addEventListener("input", () => this.complain(""));
    const isTick = input.type === "checkbox";
    const labelled = h("label", { for: id }, label);
    this.element = h("div", { class: `field${isTick ? " field-checkbox" : ""}` }, isTick ? [input, labelled] : [labelled, input]);
    this.element.append(this.hint, this.fault);
  }

  /** The value for the request, undefined when there is none. Throws what is wrong, in words. */
  read() {
    if (this.input.type === "checkbox") return this.input.checked || undefined;
    return this.parse(this.input.value);
  }

  /** Whether the input can hold the value; then it does. */
  write(value) {
    if (this.input.type === "checkbox") {
      if (typeof value !== "boolean") return false;
      this.input.checked = value;
      return true;
    }
    const text = this.format(value);
    if (text === undefined) return false;
    this.input.value = text;
    return this.input.value === text;
  }

  /** As a link has it: text, "" for nothing. */
  get text() {
    return this.input.type === "checkbox" ? (this.input.checked ? "true" : "") : this.input.value;
  }

  set text(text) {
    if (this.input.type === "checkbox") this.input.checked = text === "true";
    else this.input.value = text;
  }

  complain(message) {
    if (message) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
    this.fault.hidden = !message;
    replace(this.fault, message);
  }

  /** The secret was there, and has to be typed again. */
  askAgain() {
    this.complain("This was hidden: type it again, or leave it empty to go without.");
  }
}

export function textField(name, label, options = {}) {
  const { placeholder = "", list = null, ...others } = options;
  const input = h("input", { type: "text", placeholder, list, autocomplete: "off", autocapitalize: "none", spellcheck: "false" });
  return new Field(name, label, input, others);
}

export function secretField(name, label, options = {}) {
  const input = h("input", { type: "password", autocomplete: "new-password", placeholder: options.placeholder ?? "" });
  return new Field(name, label, input, { ...options, parse: (text) => text || undefined, isSecret: true });
}

export function tickField(name, label, options = {}) {
  return new Field(name, label, h("input", { type: "checkbox" }), options);
}

export function numberField(name, label, options = {}) {
  const input = h("input", { type: "text", inputmode: "numeric", autocomplete: "off", placeholder: options.placeholder ?? "" });
  return new Field(name, label, input, { ...options, parse: whole, format: numberText });
}

/** choices: pairs of value and word. */
export function choiceField(name, label, choices, options = {}) {
  const input = h("select", {}, choices.map(([value, word]) => h("option", { value }, word)));
  return new Field(name, label, input, options);
}

export function areaField(name, label, options = {}) {
  const { rows = 3, placeholder = "", ...others } = options;
  const input = h("textarea", { rows, placeholder, spellcheck: "false", autocapitalize: "none" });
  return new Field(name, label, input, others);
}

/** A secret of several lines. */
export function secretArea(name, label, options = {}) {
  const input = h("textarea", { rows: 2, class: "secret-area", autocomplete: "off", spellcheck: "false", autocapitalize: "none" });
  return new Field(name, label, input, { ...options, parse: (text) => text || undefined, isSecret: true });
}

/** Whether something in it is called as secrets are: that is put into no address. */
export function looksSecret(text) {
  return /pass|pwd|secret|token|api_?key|private_?key|credential/i.test(text);
}

/** Text, or JSON where it begins as an object or a list. */
export function looseJson(text) {
  const word = text.trim();
  if (!word) return undefined;
  return /^[[{]/.test(word) && !word.startsWith("{{") ? strictJson(word) : word;
}

export function looseJsonText(value) {
  if (typeof value === "string") return value;
  return value !== null && typeof value === "object" ? JSON.stringify(value, null, 2) : undefined;
}

export function strictJson(text) {
  if (!text.trim()) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`This is not JSON: ${error.message}`);
  }
}

export function whole(text) {
  const word = text.trim();
  if (!word) return undefined;
  if (!/^-?\d{1,15}$/.test(word)) throw new Error("This has to be a whole number.");
  return Number(word);
}

function plainText(text) {
  return text.trim() || undefined;
}

function onlyText(value) {
  return typeof value === "string" ? value : undefined;
}

function numberText(value) {
  return Number.isInteger(value) ? String(value) : undefined;
}
