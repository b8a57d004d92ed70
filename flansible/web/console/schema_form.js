// A form drawn from the JSON Schema of a kind of definitions: one field for each property.

import { h } from "./dom.js";
import { Field } from "./fields.js";

/** Reads and writes the body of a definition's PUT. schema: as `GET /api/definitions` returns it. */
export class SchemaForm {
  constructor(schema) {
    this.schema = schema;
    this.fields = new Map();
    for (const name of Object.keys(schema.properties ?? {})) this.fields.set(name, this.#newField(name));
    this.element = h("div", { class: "schema-form" }, [...this.fields.values()].map((field) => field.element));
  }

  #newField(name, changes = {}) {
    const { properties, required = [], $defs = {} } = this.schema;
    return newField(name, { ...plainSchema(properties[name], $defs), ...changes }, required.includes(name));
  }

  /** Fills the form. sealed: names of fields that are set and not shown. */
  fill(values, sealed) {
    for (const [name, field] of this.fields) {
      const value = values[name];
      if (value !== undefined && value !== null && !field.write(value) && field.input.type === "text") this.#showLines(name, value);
      if (sealed.includes(name)) field.input.placeholder = "set; leave empty to keep it";
    }
    for (const field of this.fields.values()) field.filled = field.text;
  }

  /** Puts a textarea in the place of an input that cannot hold the value: it would drop the ends of lines. */
  #showLines(name, value) {
    const field = this.#newField(name, { format: "lines" });
    field.write(value);
    this.fields.get(name).element.replaceWith(field.element);
    this.fields.set(name, field);
  }

  /** Returns the body. errors: the number of invalid fields; each shows its error. */
  read() {
    return this.#read((field) => field.read());
  }

  /** Like `read`, but only what differs from what the form was filled with, also what was emptied or unchecked. */
  readChanges() {
    return this.#read((field) => (field.text === field.filled ? undefined : changed(field)));
  }

  #read(valueOf) {
    const body = {};
    let errors = 0;
    for (const [name, field] of this.fields) {
      field.setError("");
      try {
        const value = valueOf(field);
        if (value !== undefined) body[name] = value;
      } catch (error) {
        field.setError(error.message);
        errors += 1;
      }
    }
    return { body, errors };
  }

  /** Shows the service's errors at their fields; returns those that belong to none. */
  showErrors(errors) {
    return errors.filter(({ field, message }) => {
      const found = this.fields.get(/^[^.[]*/.exec(field)[0]);
      found?.setError(message);
      return !found;
    });
  }
}

function changed(field) {
  if (field.input.type === "checkbox") return field.input.checked;
  const value = field.read() ?? field.emptied;
  if (value === undefined) throw new Error("This cannot be empty: what stood here would apply.");
  return value;
}

/** Resolves references, and the union with null that an optional field is. */
function plainSchema(property, defined) {
  const branches = (property.anyOf ?? [property]).filter((branch) => branch.type !== "null");
  const isNullable = branches.length < (property.anyOf?.length ?? 1);
  if (branches.length !== 1) return { ...property, isNullable, type: "any" };
  const [branch] = branches;
  const target = branch.$ref ? defined[branch.$ref.split("/").at(-1)] : branch;
  return { ...target, ...property, isNullable, anyOf: undefined, type: target.type ?? "any", enum: target.enum ?? (target.const === undefined ? undefined : [target.const]) };
}

function newField(name, schema, isRequired) {
  const field = createField(name, schema, isRequired);
  // A definition is shown as it was written: its secrets are left out, not hidden.
  field.mayHide = false;
  // The value that says that there is none; undefined for a type that has no such value.
  field.emptied = schema.isNullable ? null : schema.enum ? undefined : { string: "", array: [] }[schema.type];
  return field;
}

function createField(name, schema, isRequired) {
  const label = isRequired ? `${name} (required)` : name;
  const hint = schema.description ?? "";
  // Without a default, false is another value than none.
  const choices = schema.enum ?? (schema.type === "boolean" && typeof schema.default !== "boolean" ? [true, false] : null);
  if (choices) {
    const options = choices.map((value) => h("option", { value }, String(value)));
    return new Field(name, label, h("select", { name }, h("option", { value: "" }, ""), options), { hint, parse: choiceOf(choices), format: String });
  }
  if (schema.type === "boolean") return new Field(name, label, h("input", { name, type: "checkbox" }), { hint });
  if (schema.type === "integer" || schema.type === "number") {
    return new Field(name, label, h("input", { name, type: "text", inputmode: "decimal" }), { hint, parse: number, format: String });
  }
  if (schema.type === "array" && schema.items?.type === "string") {
    const input = h("textarea", { name, rows: 3 });
    return new Field(name, label, input, { hint: `${hint} One in each line.`, parse: lines, format: (value) => value.join("\n") });
  }
  if (schema.type === "string") {
    const isSecret = schema.format === "password" || schema.writeOnly === true;
    const plain = { name, autocomplete: "off", spellcheck: "false" };
    // A key has several lines, which a password input cannot hold.
    const hasLines = schema.format === "lines";
    const input = hasLines ? h("textarea", { ...plain, rows: 3 }) : isSecret ? h("textarea", { ...plain, rows: 2, class: "secret" }) : h("input", { ...plain, type: "text" });
    return new Field(name, label, input, { hint, parse: textOrNone, format: String, isSecret });
  }
  const input = h("textarea", { name, rows: 4, spellcheck: "false" });
  return new Field(name, label, input, { hint: `${hint} As JSON.`, parse: json, format: (value) => JSON.stringify(value, null, 2) });
}

function textOrNone(text) {
  return text === "" ? undefined : text;
}

/** Choices may be other than text: an input has their text. */
function choiceOf(choices) {
  return (text) => (text === "" ? undefined : choices.find((value) => String(value) === text));
}

function lines(text) {
  const found = text.split("\n").map((line) => line.trim()).filter(Boolean);
  return found.length ? found : undefined;
}

function number(text) {
  if (!text.trim()) return undefined;
  const value = Number(text);
  if (Number.isNaN(value)) throw new Error("This is not a number.");
  return value;
}

function json(text) {
  if (!text.trim()) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`This is not JSON: ${error.message}`);
  }
}
