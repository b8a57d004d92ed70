// Fields for the variables that a playbook can be given, made from what the service tells of it; and secret ones by name.

import { h, replace } from "../../dom.js";
import { areaField, choiceField, numberField, secretField, strictJson, textField, tickField } from "./fields.js";

const SOURCES = { vars_prompt: "asked for by", argument_specs: "of the role", vars: "set by" };
const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** What a playbook can be given. What nobody has touched is not sent: then its own default counts. */
export class VariableFields {
  constructor() {
    this.fields = new Map();
    this.element = h("div", { class: "variables" });
  }

  show(variables) {
    this.fields = new Map();
    for (const variable of variables) if (!this.fields.has(variable.name)) this.fields.set(variable.name, fieldOf(variable));
    const all = [...this.fields.values()].map((field) => field.element);
    replace(this.element, all.length ? [h("h3", {}, "Variables"), h("div", { class: "field-grid" }, all)] : null);
  }

  /** `{plain: {name: value}, secret: {name: text}}`; faults are shown where they are and counted. */
  read() {
    const found = { plain: {}, secret: {}, faults: 0 };
    for (const [name, field] of this.fields) {
      field.complain("");
      try {
        const value = field.changed();
        if (value === undefined && field.isRequired) throw new Error("This is needed.");
        if (value !== undefined) found[field.isSecret ? "secret" : "plain"][name] = value;
      } catch (error) {
        field.complain(error.message);
        found.faults += 1;
      }
    }
    return found;
  }

  /** The values that are no secrets, as far as they can be read: somebody may still be typing. */
  plain() {
    const found = {};
    for (const [name, field] of this.fields) {
      try {
        const value = field.isSecret ? undefined : field.changed();
        if (value !== undefined) found[name] = value;
      } catch {
        // It is said when the form is sent.
      }
    }
    return found;
  }

  /** Takes the values it has fields for; gives the others back. */
  take(values, isSecret = false) {
    const left = {};
    for (const [name, value] of Object.entries(values)) {
      const field = this.fields.get(name);
      if (!field || !field.take(value, isSecret)) left[name] = value;
    }
    return left;
  }
}

function fieldOf(variable) {
  const field = bare(variable);
  const initial = field.text;
  field.isRequired = variable.required;
  // An unticked box is a value too, so what counts is whether it was changed.
  field.changed = () => {
    if (field.input.type === "checkbox") return field.input.checked === (initial === "true") ? undefined : field.input.checked;
    return field.read();
  };
  field.take = (value, isSecret) => {
    if (field.isSecret && (isSecret || typeof value !== "object")) return field.askAgain(), true;
    return !isSecret && field.write(value);
  };
  return field;
}

function bare(variable) {
  const { name, type, choices } = variable;
  const label = [h("code", {}, name), variable.required ? h("span", { class: "required" }, " (needed)") : null];
  const hint = [variable.description, `${SOURCES[variable.source]} ${variable.role ?? variable.play}`].filter(Boolean).join(" — ");
  const shown = variable.default === null || variable.default === undefined ? "" : asText(variable.default);
  const options = { hint, placeholder: shown };
  if (variable.private) return secretField(name, label, options);
  if (Array.isArray(choices) && choices.length) return chosen(name, label, choices, shown, hint);
  if (type === "bool") {
    const field = tickField(name, label, { hint });
    field.input.checked = variable.default === true;
    return field;
  }
  if (type === "int") return numberField(name, label, options);
  if (type === "float") return textField(name, label, { ...options, parse: decimal, format: (value) => typeof value === "number" ? String(value) : undefined });
  if (type === "list" || type === "dict") return areaField(name, label, { ...options, parse: shaped(type), format: (value) => JSON.stringify(value) });
  return textField(name, label, { ...options, parse: (text) => text || undefined, format: (value) => (typeof value === "string" ? value : undefined) });
}

function chosen(name, label, choices, shown, hint) {
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

function shaped(type) {
  return (text) => {
    const value = strictJson(text);
    if (value === undefined) return undefined;
    const fits = type === "list" ? Array.isArray(value) : value !== null && typeof value === "object" && !Array.isArray(value);
    if (!fits) throw new Error(type === "list" ? 'This has to be a list, such as ["a", "b"].' : 'This has to be an object, such as {"a": 1}.');
    return value;
  };
}

/** Secret variables by name: a row for each. */
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
      value: secretField("secret_vars", "Value"),
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

  clear() {
    this.rows = [];
    replace(this.list);
  }

  read() {
    const found = { secret: {}, faults: 0 };
    for (const { name, value } of this.rows) {
      const word = name.text.trim();
      if (!word && !value.text) continue;
      if (!NAME.test(word)) {
        name.complain("A name has letters, digits and underscores, and begins with no digit.");
        found.faults += 1;
      } else if (value.text) found.secret[word] = value.text;
    }
    return found;
  }

  find(name) {
    return this.rows.find((row) => row.name.text.trim() === name)?.value;
  }
}
