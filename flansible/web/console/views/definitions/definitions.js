// Definitions: a tab for each kind, the list of its definitions, and a form to make or change one.

import { get, put, remove, session } from "../../api.js";
import { errorBox, focusFirst, h, notify, replace } from "../../dom.js";
import { setParams } from "../../router.js";
import { ProjectRemote } from "./remote.js";
import { schedulePanel } from "./schedule_panel.js";
import { SchemaForm } from "../../schema_form.js";

// The page with what was sent or received, of the kinds that have one: its view, the word for it, and the view's filter.
const LOGS = { notifications: ["deliveries", "Deliveries", "notification"], webhooks: ["hookcalls", "Calls", "webhook"] };

/** route.params: `kind`, and `name` of the definition whose form is open ("" for a new one). */
export async function show(root, { params, signal }) {
  const { kinds } = await get("api/definitions", {}, signal);
  await new Definitions(root, kinds, signal).open(params.get("kind") ?? kinds[0].kind, params.get("name"));
}

class Definitions {
  constructor(root, kinds, signal) {
    Object.assign(this, { kinds, signal, opening: new AbortController() });
    this.tabs = h("nav", { class: "row kinds", "aria-label": "Kinds of definitions" });
    this.content = h("div", {});
    replace(root, h("h1", {}, "Definitions"), kinds.length > 1 ? this.tabs : null, this.content);
  }

  /** Shows a kind; name: of the definition to show in the form, "" for a new one, null for the list. */
  async open(kindName, name) {
    const kind = this.kinds.find((one) => one.kind === kindName) ?? this.kinds[0];
    this.opening.abort();
    this.opening = new AbortController();
    const signal = AbortSignal.any([this.opening.signal, this.signal]);
    setParams({ kind: kind.kind, name });
    const link = (one) => h("button", { type: "button", "aria-pressed": String(one === kind), onclick: () => this.open(one.kind, null) }, one.kind);
    replace(this.tabs, this.kinds.map(link));
    try {
      if (name === null || name === undefined) await this.showList(kind, signal);
      else await this.showForm(kind, name, signal);
    } catch (error) {
      if (!signal.aborted) replace(this.content, errorBox(error));
    }
  }

  async showList(kind, signal) {
    const found = [];
    let after = null;
    do {
      const page = await get(`api/${kind.kind}`, { after, limit: 1000 }, signal);
      found.push(...page.items);
      after = page.next_after;
    } while (after !== null);
    const button = h("button", { type: "button", class: "primary", onclick: () => this.open(kind.kind, "") }, "New");
    const head = h("div", { class: "row title" }, h("p", { class: "about" }, kind.title), this.logLink(kind), kind.may_define ? button : null);
    replace(this.content, head, found.length ? this.table(kind, found) : h("div", { class: "panel" }, h("p", {}, "None yet.")));
  }

  /** The link to what was sent or received by all of the kind, or by the one of this name; null for other kinds. */
  logLink(kind, name = "") {
    if (!(kind.kind in LOGS)) return null;
    const [view, word, filter] = LOGS[kind.kind];
    return h("a", { href: `#/${view}${name ? `?${new URLSearchParams({ [filter]: name })}` : ""}` }, word);
  }

  table(kind, found) {
    const words = ["Name", "Content", "Owner", "Changed"].map((word) => h("th", { scope: "col" }, word));
    const row = (one) =>
      h(
        "tr",
        {},
        h("td", {}, h("button", { type: "button", class: "quiet name", onclick: () => this.open(kind.kind, one.name) }, one.name)),
        h("td", {}, h("code", {}, this.summary(kind, one))),
        h("td", {}, one.owner),
        h("td", {}, new Date(one.updated_at).toLocaleString()),
      );
    return h("div", { class: "panel scroll", role: "region", tabindex: 0, "aria-label": kind.title }, h("table", {}, h("thead", {}, h("tr", {}, words)), h("tbody", {}, found.map(row))));
  }

  /** The fields that are set, in one line. */
  summary(kind, one) {
    const names = Object.keys(kind.json_schema.properties);
    const isSet = (name) => one[name] !== undefined && one[name] !== null && !(Array.isArray(one[name]) && !one[name].length);
    return names.filter(isSet).map((name) => `${name}: ${typeof one[name] === "string" ? one[name] : JSON.stringify(one[name])}`).join(", ");
  }

  async showForm(kind, name, signal) {
    const current = name ? await get(this.path(kind, name), {}, signal) : null;
    const mayChange = kind.may_define && (!current || session.is_admin || current.owner === session.user);
    const form = new SchemaForm(kind.json_schema);
    if (current) form.fill(current, current.sealed);
    const nameInput = h("input", { id: "definition-name", name: "name", type: "text", value: name, disabled: Boolean(current), autocomplete: "off", spellcheck: "false" });
    const errors = h("div", {});
    const buttons = h(
      "div",
      { class: "row" },
      mayChange ? h("button", { type: "submit", class: "primary" }, current ? "Save" : "Create") : null,
      h("button", { type: "button", onclick: () => this.open(kind.kind, null) }, "Back to the list"),
      current ? this.logLink(kind, name) : null,
      mayChange && current ? h("button", { type: "button", class: "danger", onclick: () => this.remove(kind, current, errors, signal) }, "Delete") : null,
    );
    const title = h("h2", {}, current ? `${kind.kind}/${name}` : `New: ${kind.title}`);
    const owner = current ? h("p", { class: "hint" }, `Written by ${current.owner}, ${new Date(current.updated_at).toLocaleString()}`) : null;
    const element = h("form", { class: "panel", novalidate: true }, title, owner, errors, h("div", { class: "field" }, h("label", { for: "definition-name" }, "Name"), nameInput), form.element, buttons);
    element.addEventListener("submit", (event) => {
      event.preventDefault();
      this.save(kind, nameInput.value.trim(), current, form, errors, signal);
    });
    if (!mayChange) for (const input of element.querySelectorAll("input, select, textarea")) input.disabled = true;
    const remote = current && kind.kind === "projects" ? new ProjectRemote(current, session.may_act, signal).element : null;
    const more = current && kind.kind === "schedules" ? schedulePanel(current, mayChange || session.user === current.owner, signal) : null;
    const launch = current?.may_launch ? h("p", {}, h("a", { href: `#/templates?${new URLSearchParams({ name })}` }, "Run this template")) : null;
    replace(this.content, launch, more, element, remote);
    focusFirst(element);
  }

  async save(kind, name, current, form, errors, signal) {
    const { body, errors: count } = form.read();
    if (count) return;
    if (!name) {
      replace(errors, errorBox({ message: "Give it a name." }));
      return;
    }
    try {
      await put(this.path(kind, name), body, current ? { "If-Match": current.etag } : { "If-None-Match": "*" });
    } catch (error) {
      const others = form.showErrors(error.errors ?? []);
      replace(errors, errorBox({ message: error.message, errors: others }));
      return;
    }
    notify(`${kind.kind}/${name} saved`);
    if (!signal.aborted) await this.open(kind.kind, null);
  }

  async remove(kind, current, errors, signal) {
    if (!confirm(`Delete ${kind.kind}/${current.name}?`)) return;
    try {
      await remove(this.path(kind, current.name), { "If-Match": current.etag });
    } catch (error) {
      replace(errors, errorBox(error));
      return;
    }
    notify(`${kind.kind}/${current.name} deleted`);
    if (!signal.aborted) await this.open(kind.kind, null);
  }

  path(kind, name) {
    return `api/${kind.kind}/${encodeURIComponent(name)}`;
  }
}
