// Fields for the variables of a playbook, built from the service's description of it; and secret variables by name.

import { h, replace } from "../../dom.js";
import { textareaField, choiceField, isHidden, numberField, secretTextarea, strictJson, textField, checkboxField } from "../../fields.js";

const SOURCES = { vars_prompt: "prompted by", argument_specs: "of the role", vars: "set by" };
const FORMS = { list: 'List as JSON, such as ["a", "b"]', dict: 'Object as JSON, such as {"a": 1}' };
const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** The variables of the chosen playbook. Unchanged ones are not sent, but for those of a request that is run again: then
 * the playbook's default applies. */
export class VariableFields {
  constructor() {
    this.fields = new Map();
    this.kept = new Map();
    this.element = h("div", { class: "variables" });
  }

  /** Keeps the fields of another form: those of the same names that are shown from now on take their values. */
  keep({ fields, kept }) {
    this.kept = new Map([...kept, ...fields]);
  }

  show(variables) {
    this.fields = new Map();
    for (const variable of variables) if (!this.fields.has(variable.name)) this.fields.set(variable.name, fieldOf(variable));
    for (const [name, field] of this.fields) takeValue(field, this.kept.get(name));
    const all = [...this.fields.values()].map((field) => field.element);
    replace(this.element, all.length ? [h("h2", {}, "Variables"), h("div", { class: "field-grid" }, all)] : null);
  }

  /** Reads `{plain: {name: value}, secret: {name: text}, errors}`; each invalid field shows its error. */
  read() {
    const found = { plain: {}, secret: {}, errors: 0 };
    for (const [name, field] of this.fields) {
      field.setError("");
      try {
        const value = field.changed();
        if (value === undefined && field.isRequired) throw new Error("This is required.");
        if (value !== undefined) found[field.isSecret ? "secret" : "plain"][name] = value;
      } catch (error) {
        field.setError(error.message);
        found.errors += 1;
      }
    }
    return found;
  }

  /** Reads the values that are not secret and valid: the user may still be typing. */
  plain() {
    const found = {};
    for (const [name, field] of this.fields) {
      try {
        const value = field.isSecret ? undefined : field.changed();
        if (value !== undefined) found[name] = value;
      } catch {
        // `read` shows the error when the form is sent.
      }
    }
    return found;
  }

  /** Writes the values that have fields; returns the others. */
  assign(values, isSecret = false) {
    const left = {};
    for (const [name, value] of Object.entries(values)) {
      const field = this.fields.get(name);
      if (!field || !field.assign(value, isSecret)) left[name] = value;
    }
    return left;
  }
}

function fieldOf(variable) {
  const field = createInput(variable);
  const initial = field.text;
  field.isRequired = variable.required;
  // A cleared checkbox is a value too: it is sent if it was changed.
  field.changed = () => {
    if (field.text === field.given?.text) return field.given.value;
    if (field.input.type === "checkbox") return field.input.checked === (initial === "true") ? undefined : field.input.checked;
    return field.read();
  };
  field.assign = (value, isSecret) => {
    if (field.isSecret && (isSecret || typeof value !== "object")) return field.requireRetyping(), true;
    if (isSecret || !field.write(value)) return false;
    if (isHidden(value)) return true; // to be given again
    // It is sent as it was given, also where it is the playbook's default by now, or "".
    field.given = { value, text: field.text };
    if (value === "") field.input.placeholder = "";
    return true;
  };
  return field;
}

function takeValue(field, kept) {
  if (!kept || kept.isSecret !== field.isSecret) return;
  if (field.isSecret) return field.copy(kept);
  try {
    const value = kept.changed();
    if (value !== undefined) field.assign(value);
    else field.setError(kept.error.textContent);
  } catch {
    field.copy(kept); // not valid yet: the user may still be typing
  }
}

function createInput(variable) {
  const { name, type, choices } = variable;
  const label = [h("code", {}, name), variable.required ? h("span", { class: "required" }, " (required)") : null];
  const hint = [variable.description, FORMS[type], `${SOURCES[variable.source]} ${variable.role ?? variable.play}`].filter(Boolean).join(" — ");
  const shown = variable.default === null || variable.default === undefined ? "" : asText(variable.default);
  const options = { hint, placeholder: shown };
  if (variable.private) return secretTextarea(name, label, options);
  if (Array.isArray(choices) && choices.length) return selectField(name, label, choices, shown, hint);
  // Without a default, false is another value than none.
  if (type === "bool" && typeof variable.default !== "boolean") return selectField(name, label, [true, false], shown, hint);
  if (type === "bool") {
    const field = checkboxField(name, label, { hint });
    field.input.checked = variable.default;
    return field;
  }
  if (type === "int") return numberField(name, label, options);
  if (type === "float") return textField(name, label, { ...options, parse: decimal, format: (value) => typeof value === "number" ? String(value) : undefined });
  if (type === "list" || type === "dict") return textareaField(name, label, { ...options, parse: parseJsonOf(type), format: (value) => JSON.stringify(value) });
  return textField(name, label, { ...options, parse: (text) => text || undefined, format: (value) => (typeof value === "string" ? value : undefined) });
}

function selectField(name, label, choices, shown, hint) {
  const format = (value) => {
    const index = choices.findIndex((choice) => JSON.stringify(choice) === JSON.stringify(value));
    return index < 0 ? undefined : String(index);
  };
  const words = [["", shown ? `Default: ${shown}` : "Not set"], ...choices.map((choice, index) => [String(index), asText(choice)])];
  return choiceField(name, label, words, { hint, parse: (text) => (text ? choices[Number(text)] : undefined), format });
}

function asText(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function decimal(text) {
  const word = text.trim();
  if (!word) return undefined;
  if (!Number.isFinite(Number(word))) throw new Error("This has to be a number.");
  return Number(word);
}

function parseJsonOf(type) {
  return (text) => {
    const value = strictJson(text);
    if (value === undefined) return undefined;
    const fits = type === "list" ? Array.isArray(value) : value !== null && typeof value === "object" && !Array.isArray(value);
    if (!fits) throw new Error(type === "list" ? 'This has to be a list, such as ["a", "b"].' : 'This has to be an object, such as {"a": 1}.');
    return value;
  };
}

/** Secret variables, one row each. */
export class SecretRows {
  constructor() {
    this.rows = [];
    this.list = h("div", { class: "secret-rows" });
    const more = h("button", { type: "button", onclick: () => this.add().name.input.focus() }, "Add a secret variable");
    this.element = h("div", {}, this.list, more);
  }

  add(name = "") {
    const row = {
      name: textField("secret_vars", "Name"),
      value: secretTextarea("secret_vars", "Value"),
    };
    row.name.text = name;
    const drop = () => {
      this.rows = this.rows.filter((other) => other !== row);
      row.element.remove();
    };
    row.element = h("div", { class: "secret-row" }, row.name.element, row.value.element, h("button", { type: "button", onclick: drop }, "Remove"));
    this.rows.push(row);
    this.list.append(row.element);
    return row;
  }

  copy(other) {
    for (const { name, value } of other.rows) this.add(name.text).value.copy(value);
  }

  read() {
    const found = { secret: {}, errors: 0 };
    for (const { name, value } of this.rows) {
      const word = name.text.trim();
      if (!word && !value.text) continue;
      if (!NAME.test(word)) {
        name.setError("A name has letters, digits and underscores, and does not begin with a digit.");
        found.errors += 1;
      } else if (value.text) found.secret[word] = value.text;
    }
    return found;
  }

  find(name) {
    return this.rows.find((row) => row.name.text.trim() === name)?.value;
  }
}
