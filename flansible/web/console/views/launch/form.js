// The form of one kind of request: its fields, read as a request, and filled from a request or an address.

import { get, session } from "../../api.js";
import { errorBox, h, replace } from "../../dom.js";
import { MASK, looksSecret } from "../../fields.js";
import { credentialsField } from "./credentials.js";
import { InventoryChoice } from "./inventory.js";
import { adhocFields, otherField, playbookFields, runFields, secretFields, checkboxFields, variablesField } from "./options.js";
import { PlaybookChoice } from "./playbook.js";
import { SecretRows, VariableFields } from "./variables.js";

// Aliases of the API -> names of fields.
const ALIASES = { host_filter: "host_pattern", extra_args: "extra_vars" };
const OF_PROJECT = new Set(["playbook_dir", "playbook", "inventory"]);
// Free text: may contain a password under its name.
const FREE_TEXT = new Set(["module_args", "extra_vars", "other"]);

export class LaunchForm {
  /** source: the project and its ref, which both kinds of requests have; their fields are outside of this form. */
  constructor(kind, { listed, inventories, credentials, source, signal, onChange }) {
    Object.assign(this, { kind, source, signal, onChange });
    this.credentials = credentialsField(credentials);
    this.fields = new Map();
    this.add(source.fields);
    this.variables = new VariableFields();
    this.secretRows = new SecretRows();
    const onPick = (name) => this.pick(name);
    const placeOf = (path) => this.placeOf(path);
    this.inventory = new InventoryChoice(inventories, { mayNameAny: session.is_admin, onPick, placeOf, query: () => source.query, signal });
    this.element = h("div", {}, kind === "playbook" ? this.playbookPart(listed) : this.adhocPart(), this.sharedPart());
    this.add(this.inventory.field);
    const pull = this.fields.get("update_git_repo");
    if (pull && source.query.project) pull.element.hidden = true; // its run is at one commit
  }

  add(...fields) {
    for (const field of fields.flat()) this.fields.set(field.name, field);
    return fields.flat().map((field) => field.element);
  }

  playbookPart(listed) {
    this.choice = new PlaybookChoice(listed, () => this.loadVariables());
    this.add(this.choice.fields);
    this.about = h("div", {});
    return [
      h("div", { class: "panel" }, this.choice.element, this.about, this.variables.element),
      h("div", { class: "panel" }, this.inventory.element, h("div", { class: "field-grid" }, this.add(playbookFields()))),
    ];
  }

  adhocPart() {
    const { fields, extra } = adhocFields();
    const [hosts, module, given] = this.add(fields);
    return h("div", { class: "panel" }, this.inventory.element, h("div", { class: "field-grid" }, hosts, module), given, extra);
  }

  sharedPart() {
    const ticks = h("div", { class: "checkboxes" }, this.add(checkboxFields(this.kind)));
    const secrets = h("details", {}, h("summary", {}, "Passwords and secret variables"), h("p", { class: "hint" }, "Encrypted, given only to the run, and never shown."));
    if (this.credentials) secrets.append(...this.add(this.credentials));
    secrets.append(h("div", { class: "field-grid" }, this.add(secretFields())), this.secretRows.element);
    const more = h("details", {}, h("summary", {}, "More options"), h("div", { class: "field-grid" }, this.add(runFields(this.kind))), this.add(otherField()));
    return h("div", { class: "panel" }, ticks, this.add(variablesField()), secrets, more);
  }

  /** Reads the body to post. errors: the number of invalid fields; each shows its error. */
  read() {
    const body = {};
    let errors = 0;
    for (const [name, field] of this.fields) {
      field.setError(""); // from the last attempt
      try {
        const value = field.read();
        if (value !== undefined && name !== "other") body[name] = value;
        if (name === "other") Object.assign(body, value);
      } catch (error) {
        field.setError(error.message);
        errors += 1;
      }
    }
    const [variables, rows] = [this.variables.read(), this.secretRows.read()];
    withVariables(body, variables.plain);
    const secret = { ...variables.secret, ...rows.secret };
    if (Object.keys(secret).length) body.secret_vars = secret;
    if (this.kind === "adhoc") body.module ??= "ping";
    return { body, errors: errors + variables.errors + rows.errors };
  }

  /** Returns the parameters of the address: all values but secrets and those named like secrets. */
  params() {
    const found = {};
    for (const [name, field] of this.fields) {
      const isShared = field.text && !field.isSecret && !(FREE_TEXT.has(name) && looksSecret(field.text));
      if (isShared) found[name] = field.text;
    }
    const isShared = ([name, value]) => !looksSecret(value !== null && typeof value === "object" ? JSON.stringify([name, value]) : name);
    const plain = Object.fromEntries(Object.entries(this.variables.plain()).filter(isShared));
    if (Object.keys(plain).length) found.variables = JSON.stringify(plain);
    return found;
  }

  async fillFrom(params) {
    for (const [name, field] of this.fields) if (!field.isSecret && params.has(name)) field.text = params.get(name);
    await this.loadVariables();
    try {
      this.assignVariables(JSON.parse(params.get("variables") ?? "{}"));
    } catch {
      // A truncated link: the form is filled as far as possible.
    }
    this.openFilled();
  }

  /** Takes what another form has, but for its playbook and inventory: those are of its project. */
  takeOver(other) {
    for (const [name, field] of this.fields) if (!OF_PROJECT.has(name)) field.copy(other.fields.get(name));
    this.secretRows.copy(other.secretRows);
    this.variables.keep(other.variables);
    this.openFilled();
  }

  /** Fills the form from a stored request; masked: the paths of its hidden values. */
  async fill(body, masked) {
    const { secret_vars: secret = {}, ...others } = body;
    const left = {};
    let variables = {};
    for (const [given, value] of Object.entries(others)) {
      const name = ALIASES[given] ?? given;
      const field = this.fields.get(name);
      if (field?.isSecret && masked.includes(given)) field.requireRetyping();
      else if (name === "extra_vars" && isObject(value)) variables = value;
      else if (!field || !field.write(value)) left[given] = value;
    }
    if (Object.keys(left).length) this.fields.get("other").write(left);
    await this.loadVariables();
    this.assignVariables(variables);
    for (const name of Object.keys(this.variables.assign(secret, true))) this.secretRows.add(name).value.requireRetyping();
    this.openFilled();
  }

  assignVariables(values) {
    const left = this.variables.assign(values);
    const field = this.fields.get("extra_vars");
    // A value that was hidden for its name becomes a secret variable.
    for (const [name, value] of Object.entries(left)) {
      if (value !== MASK) continue;
      delete left[name];
      this.secretRows.add(name).value.requireRetyping();
    }
    if (Object.keys(left).length && !field.text) field.write(left);
  }

  async loadVariables() {
    if (this.kind !== "playbook") return;
    const query = { ...this.source.query, playbook_dir: this.fields.get("playbook_dir").text.trim() || ".", playbook: this.fields.get("playbook").text.trim() };
    const key = JSON.stringify(query);
    this.requested = key;
    this.onChange();
    if (!query.playbook) return;
    try {
      const { playbooks } = await get("api/listplaybooks", query, this.signal);
      if (this.requested !== key) return;
      replace(this.about);
      this.variables.show(playbooks[0].variables);
      this.choice.mark(playbooks[0].playbook_dir, playbooks[0].playbook);
    } catch (error) {
      if (this.signal.aborted || this.requested !== key) return;
      this.variables.show([]);
      replace(this.about, errorBox(error));
    }
  }

  /** Converts an inventory's path: relative to the playbook's folder in a run, to playbook_root in a listing. */
  placeOf(path) {
    const folder = this.fields.get("playbook_dir")?.text.trim();
    if (this.source.query.project) return path; // from the project's root
    const isRelative = path && !path.startsWith("/") && !path.includes(",");
    return isRelative && folder ? `${folder.replace(/\/+$/, "")}/${path}` : path;
  }

  /** Adds a clicked group or host to the pattern, or removes it. */
  pick(name) {
    const field = this.fields.get(this.kind === "adhoc" ? "host_pattern" : "limit");
    const names = field.text.split(",").map((word) => word.trim()).filter(Boolean);
    const rest = names.filter((word) => word !== name);
    field.text = (rest.length < names.length ? rest : [...names, name]).join(",");
    field.setError("");
    this.onChange();
  }

  /** Shows the service's errors at their fields. */
  showErrors(errors) {
    for (const { field, message } of errors) this.fieldOf(field)?.setError(message);
    this.openFilled();
  }

  fieldOf(path) {
    const [, first, rest = ""] = /^([^.[]*)[.[]?([^\]]*)/.exec(path);
    const name = ALIASES[first] ?? first;
    const variable = name === "extra_vars" || name === "secret_vars" ? this.variables.fields.get(rest) : undefined;
    return variable ?? (name === "secret_vars" ? this.secretRows.find(rest) : undefined) ?? this.fields.get(name) ?? this.fields.get("other");
  }

  /** Opens the sections that contain a value or an error. */
  openFilled() {
    for (const details of this.element.querySelectorAll("details:not(.hosts)")) {
      const inputs = [...details.querySelectorAll("input, textarea, select")];
      if (inputs.some((input) => input.value || input.getAttribute("aria-invalid"))) details.open = true;
    }
  }

  /** Lists the fields that show an error, as `{field, message}` with their labels. */
  invalidFields() {
    const inputs = [...this.element.querySelectorAll("[aria-invalid=true]")];
    return inputs.map((input) => ({ field: input.labels[0].firstChild.textContent, message: input.closest(".field").querySelector(".field-error").textContent }));
  }

  focusFirstError() {
    this.openFilled();
    const first = this.element.querySelector("[aria-invalid=true]");
    first?.focus({ preventScroll: true });
    first?.closest(".field").scrollIntoView({ block: "center" });
    return Boolean(first);
  }
}

/** Adds the variables of the playbook's fields to extra_vars. Those typed as extra variables win. */
function withVariables(body, plain) {
  if (!Object.keys(plain).length) return;
  const typed = body.extra_vars;
  if (typed === undefined) body.extra_vars = plain;
  else if (isObject(typed)) body.extra_vars = { ...plain, ...typed };
  else body.extra_vars = [plain, ...(Array.isArray(typed) ? typed : [typed])];
}

function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}
