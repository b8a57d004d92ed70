// The form of one kind of request: all its fields, what they say as a request, and how a request fills them.

import { get, session } from "../../api.js";
import { faultBox, h, replace } from "../../dom.js";
import { MASK, looksSecret } from "./fields.js";
import { InventoryChoice } from "./inventory.js";
import { adhocFields, otherField, playbookFields, runFields, secretFields, tickFields, variablesField } from "./options.js";
import { PlaybookChoice } from "./playbook.js";
import { SecretRows, VariableFields } from "./variables.js";

// Other names of fields that the form has.
const ALIASES = { host_filter: "host_pattern", extra_args: "extra_vars" };
// Where somebody may have typed a password by its name.
const FREE = new Set(["module_args", "extra_vars", "other"]);

export class LaunchForm {
  constructor(kind, playbooks, inventories, signal, onChange) {
    Object.assign(this, { kind, signal, onChange });
    this.fields = new Map();
    this.variables = new VariableFields();
    this.secretRows = new SecretRows();
    const onPick = (name) => this.pick(name);
    const placeOf = (path) => this.placeOf(path);
    this.inventory = new InventoryChoice(inventories, { mayNameAny: session.is_admin, onPick, placeOf, signal });
    this.element = h("div", {}, kind === "playbook" ? this.playbookPart(playbooks) : this.adhocPart(), this.sharedPart());
    this.add(this.inventory.field);
  }

  add(...fields) {
    for (const field of fields.flat()) this.fields.set(field.name, field);
    return fields.flat().map((field) => field.element);
  }

  playbookPart(playbooks) {
    this.choice = new PlaybookChoice(playbooks, () => this.loadVariables());
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
    const ticks = h("div", { class: "checkboxes" }, this.add(tickFields(this.kind)));
    const secrets = h("details", {}, h("summary", {}, "Passwords and secret variables"), h("p", { class: "hint" }, "Sealed, handed to the run alone, and shown nowhere."));
    secrets.append(h("div", { class: "field-grid" }, this.add(secretFields())), this.secretRows.element);
    const more = h("details", {}, h("summary", {}, "More options"), h("div", { class: "field-grid" }, this.add(runFields(this.kind))), this.add(otherField()));
    return h("div", { class: "panel" }, ticks, this.add(variablesField()), secrets, more);
  }

  /** The body to be posted. faults: how many fields cannot be read; each says why. */
  read() {
    const body = {};
    let faults = 0;
    for (const [name, field] of this.fields) {
      field.complain(""); // what was said of the form as it was before
      try {
        const value = field.read();
        if (JSON.stringify(value)?.includes(MASK)) throw new Error("Something in it was hidden: type it in the place of the asterisks.");
        if (value !== undefined && name !== "other") body[name] = value;
        if (name === "other") Object.assign(body, value);
      } catch (error) {
        field.complain(error.message);
        faults += 1;
      }
    }
    const [asked, rows] = [this.variables.read(), this.secretRows.read()];
    withVariables(body, asked.plain);
    const secret = { ...asked.secret, ...rows.secret };
    if (Object.keys(secret).length) body.secret_vars = secret;
    if (this.kind === "adhoc") body.module ??= "ping";
    return { body, faults: faults + asked.faults + rows.faults };
  }

  /** For the address: what is typed, but secrets and what is called so. */
  params() {
    const found = {};
    for (const [name, field] of this.fields) {
      const isTold = field.text && !field.isSecret && !(FREE.has(name) && looksSecret(field.text));
      if (isTold) found[name] = field.text;
    }
    const plain = Object.fromEntries(Object.entries(this.variables.plain()).filter(([name]) => !looksSecret(name)));
    if (Object.keys(plain).length) found.variables = JSON.stringify(plain);
    return found;
  }

  async fillFrom(params) {
    for (const [name, field] of this.fields) if (!field.isSecret && params.has(name)) field.text = params.get(name);
    await this.loadVariables();
    try {
      this.takeVariables(JSON.parse(params.get("variables") ?? "{}"));
    } catch {
      // A link that was cut: the form says what is in it.
    }
    this.unfold();
  }

  /** From a request as it was sent; masked: the paths of what is hidden in it. */
  async fill(body, masked) {
    const { secret_vars: secret = {}, ...others } = body;
    const left = {};
    let variables = {};
    for (const [given, value] of Object.entries(others)) {
      const name = ALIASES[given] ?? given;
      const field = this.fields.get(name);
      if (field?.isSecret && masked.includes(given)) field.askAgain();
      else if (name === "extra_vars" && isObject(value)) variables = value;
      else if (!field || !field.write(value)) left[given] = value;
    }
    if (Object.keys(left).length) this.fields.get("other").write(left);
    await this.loadVariables();
    this.takeVariables(variables);
    for (const name of Object.keys(this.variables.take(secret, true))) this.secretRows.add(name).value.askAgain();
    this.unfold();
  }

  takeVariables(values) {
    const left = this.variables.take(values);
    const field = this.fields.get("extra_vars");
    // What was hidden because of its name goes where secrets go.
    for (const [name, value] of Object.entries(left)) {
      if (value !== MASK) continue;
      delete left[name];
      this.secretRows.add(name).value.askAgain();
    }
    if (Object.keys(left).length && !field.text) field.write(left);
  }

  async loadVariables() {
    if (this.kind !== "playbook") return;
    const asked = { playbook_dir: this.fields.get("playbook_dir").text.trim(), playbook: this.fields.get("playbook").text.trim() };
    const key = JSON.stringify(asked);
    this.wanted = key;
    this.onChange();
    if (!asked.playbook_dir || !asked.playbook) return;
    try {
      const { playbooks } = await get("api/listplaybooks", asked, this.signal);
      if (this.wanted !== key) return;
      replace(this.about);
      this.variables.show(playbooks[0].variables);
      this.choice.mark(playbooks[0].playbook_dir, playbooks[0].playbook);
    } catch (error) {
      if (this.signal.aborted || this.wanted !== key) return;
      this.variables.show([]);
      replace(this.about, faultBox(error));
    }
  }

  /** A relative path counts from the playbook's folder in a run, and from playbook_root where inventories are asked. */
  placeOf(path) {
    const folder = this.fields.get("playbook_dir")?.text.trim();
    const isRelative = path && !path.startsWith("/") && !path.includes(",");
    return isRelative && folder ? `${folder.replace(/\/+$/, "")}/${path}` : path;
  }

  /** A click on a group or host: in, or out again. */
  pick(name) {
    const field = this.fields.get(this.kind === "adhoc" ? "host_pattern" : "limit");
    const names = field.text.split(",").map((word) => word.trim()).filter(Boolean);
    const rest = names.filter((word) => word !== name);
    field.text = (rest.length < names.length ? rest : [...names, name]).join(",");
    field.complain("");
    this.onChange();
  }

  /** Show what the service said of fields, each at its own. */
  complain(errors) {
    for (const { field, message } of errors) this.fieldOf(field)?.complain(message);
    this.unfold();
  }

  fieldOf(path) {
    const [, first, rest = ""] = /^([^.[]*)[.[]?([^\]]*)/.exec(path);
    const name = ALIASES[first] ?? first;
    const variable = name === "extra_vars" || name === "secret_vars" ? this.variables.fields.get(rest) : undefined;
    return variable ?? (name === "secret_vars" ? this.secretRows.find(rest) : undefined) ?? this.fields.get(name) ?? this.fields.get("other");
  }

  /** What has something to say is open. */
  unfold() {
    for (const details of this.element.querySelectorAll("details:not(.hosts)")) {
      const inputs = [...details.querySelectorAll("input, textarea, select")];
      if (inputs.some((input) => input.value || input.getAttribute("aria-invalid"))) details.open = true;
    }
  }

  focusFault() {
    this.unfold();
    const first = this.element.querySelector("[aria-invalid=true]");
    first?.focus();
    return Boolean(first);
  }
}

/** Those that the form asks for go first: what is typed as extra variables wins. */
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
