// Fields of forms: each reads and writes one field of a request, and shows its error.

import { h, newId, replace } from "./dom.js";

/** Shown by the service in place of a secret. */
export const MASK = "********";
const HIDDEN_PART = "A part of it was hidden. Type it in the place of the asterisks.";

/** One input with label, hint and error. parse(text) returns the value (undefined: none), or throws; format(value) returns
 * the text, or undefined for a value that the input cannot hold. mayHide: whether asterisks in a value are the service's. */
export class Field {
  constructor(name, label, input, { hint = "", parse = plainText, format = onlyText, isSecret = false, mayHide = true } = {}) {
    Object.assign(this, { name, input, parse, format, isSecret, mayHide });
    const id = newId("field");
    this.error = h("p", { class: "field-error", id: `${id}-error`, hidden: true });
    this.hint = h("p", { class: "hint", id: `${id}-hint`, hidden: !hint }, hint);
    input.id = id;
    input.setAttribute("aria-describedby", `${id}-hint ${id}-error`);
    input.addEventListener("input", () => this.setError(""));
    const isCheckbox = input.type === "checkbox";
    const labelled = h("label", { for: id }, label);
    this.element = h("div", { class: `field${isCheckbox ? " field-checkbox" : ""}` }, isCheckbox ? [input, labelled] : [labelled, input]);
    this.element.append(this.hint, this.error);
  }

  /** Returns the value for the request, undefined when empty. Throws an Error with a message for the user. */
  read() {
    if (this.input.type === "checkbox") return this.input.checked || undefined;
    if (this.mayHide && !this.isSecret && isHidden(this.input.value)) throw new Error(HIDDEN_PART);
    return this.parse(this.input.value);
  }

  /** Writes the value; returns false if the input cannot hold it. What the service has hidden is none, and is marked. */
  write(value) {
    if (this.mayHide && value === MASK && this.input.type !== "checkbox") {
      this.input.value = "";
      this.requireRetyping();
      return true;
    }
    if (this.input.type === "checkbox") {
      if (typeof value !== "boolean") return false;
      this.input.checked = value;
      return true;
    }
    const text = this.format(value);
    if (text === undefined) return false;
    this.input.value = text;
    if (this.mayHide && isHidden(text)) this.setError(HIDDEN_PART);
    return this.input.value === text;
  }

  /** The value as text, for links; "" when empty. */
  get text() {
    return this.input.type === "checkbox" ? (this.input.checked ? "true" : "") : this.input.value;
  }

  set text(text) {
    if (this.input.type === "checkbox") this.input.checked = text === "true";
    else this.input.value = text;
  }

  /** Takes the text of another field, and its error. */
  copy(other) {
    this.text = other.text;
    this.setError(other.error.textContent);
  }

  setError(message) {
    if (message) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
    this.error.hidden = !message;
    replace(this.error, message);
  }

  /** Shows that a secret was set and has to be typed again. */
  requireRetyping() {
    this.setError("This was hidden. Type it again, or leave it empty to omit it.");
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

export function checkboxField(name, label, options = {}) {
  return new Field(name, label, h("input", { type: "checkbox" }), options);
}

export function numberField(name, label, options = {}) {
  const input = h("input", { type: "text", inputmode: "numeric", autocomplete: "off", placeholder: options.placeholder ?? "" });
  return new Field(name, label, input, { ...options, parse: parseInteger, format: numberText });
}

/** choices: pairs of value and label. */
export function choiceField(name, label, choices, options = {}) {
  const input = h("select", {}, choices.map(([value, word]) => h("option", { value }, word)));
  return new Field(name, label, input, options);
}

export function textareaField(name, label, options = {}) {
  const { rows = 3, placeholder = "", ...others } = options;
  const input = h("textarea", { rows, placeholder, spellcheck: "false", autocapitalize: "none" });
  return new Field(name, label, input, others);
}

/** Creates a field for a secret of several lines. */
export function secretTextarea(name, label, options = {}) {
  const input = h("textarea", { rows: 2, class: "secret-area", placeholder: options.placeholder ?? "", autocomplete: "off", spellcheck: "false", autocapitalize: "none" });
  return new Field(name, label, input, { ...options, parse: (text) => text || undefined, isSecret: true });
}

/** Whether the service has hidden a part of the value: eight asterisks, and no more of them. */
export function isHidden(value) {
  return /(^|[^*])\*{8}(?!\*)/.test(JSON.stringify(value) ?? "");
}

/** Whether the text contains a name that secrets have: it is not put into the address. */
export function looksSecret(text) {
  return /pass|pwd|secret|token|api_?key|private_?key|credential/i.test(text);
}

/** Parses JSON if the text begins like an object or a list; otherwise returns the text. */
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

export function parseInteger(text) {
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
