// The launch view: starts an ad-hoc command or a playbook from a form, which the address can fill in.

import { get, post, session } from "../../api.js";
import { errorBox, h, replace } from "../../dom.js";
import { plural } from "../../format.js";
import { setParams } from "../../router.js";
import { saveTemplate } from "../../save_template.js";
import { startOnce } from "../../start_once.js";
import { LaunchForm } from "./form.js";
import { previewResult } from "./preview_result.js";
import { ProjectChoice } from "./project.js";

const PATHS = { adhoc: "api/ansiblecommand", playbook: "api/ansibleplaybook" };
const WORDS = { adhoc: "Ad-hoc command", playbook: "Playbook" };

export async function show(root, route) {
  if (!session.may_act) {
    replace(root, h("p", {}, `Your role, ${session.role}, cannot start tasks.`));
    return;
  }
  replace(root, h("h1", {}, "Launch"), h("p", { class: "hint", role: "status" }, "Loading…"));
  const [listed, inventories, projects, credentials, before] = await Promise.all([
    get("api/listplaybooks", {}, route.signal),
    get("api/listinventories", {}, route.signal),
    get("api/projects", { limit: 1000 }, route.signal),
    get("api/credentials", { limit: 1000 }, route.signal),
    loadPreviousRequest(route),
  ]);
  const launch = new Launch(listed, inventories.inventories, projects.items, credentials.items, route.signal);
  replace(root, launch.element);
  await launch.begin(route.params, before);
}

/** Fetches the request of the task to run again; null when the address names none. */
async function loadPreviousRequest(route) {
  const taskId = route.params.get("from");
  if (!taskId) return null;
  const found = await get(`api/ansibletaskrequest/${encodeURIComponent(taskId)}`, {}, route.signal);
  if (!(found.kind in PATHS)) throw new Error("A Git update cannot be started from here.");
  // A different limit, as for "Run again on failed hosts".
  const limit = route.params.get("limit");
  return limit ? { ...found, body: { ...found.body, limit } } : found;
}

class Launch {
  constructor(listed, inventories, projects, credentials, signal) {
    Object.assign(this, { listed, inventories, credentials, signal });
    this.source = new ProjectChoice(projects, { listed, inventories }, signal, (found) => this.useLists(found));
    this.forms = {};
    this.send = startOnce();
    this.formSlot = h("div", { class: "launch-fields" });
    this.errorSlot = h("div", { class: "launch-error", tabindex: 0, hidden: true });
    this.outdated = h("p", { class: "hint", hidden: true }, "The form has changed since.");
    this.result = h("div", { class: "preview-result", "aria-live": "polite" });
    this.previewButton = h("button", { type: "button", onclick: () => this.preview() }, "Preview");
    this.startButton = h("button", { type: "submit", class: "primary" }, "Start");
    this.build();
  }

  build() {
    const kinds = Object.entries(WORDS).map(([kind, word]) => {
      const input = h("input", { type: "radio", name: "kind", value: kind });
      input.addEventListener("change", () => this.choose(kind));
      return h("label", { class: "kind" }, input, word);
    });
    this.kinds = h("fieldset", { class: "plain-fieldset kinds" }, h("legend", { class: "visually-hidden" }, "What to run"), kinds);
    const save = h("button", { type: "button", class: "quiet", onclick: () => this.save() }, "Save as template");
    const bar = h("div", { class: "launch-bar" }, this.errorSlot, h("div", { class: "row launch-buttons" }, this.previewButton, this.startButton, save));
    this.keepClearOf(bar);
    const form = h("form", { class: "launch-form", novalidate: true }, this.source.element, this.kinds, this.formSlot, bar);
    form.addEventListener("submit", (event) => (event.preventDefault(), this.start()));
    form.addEventListener("input", () => this.changed());
    form.addEventListener("change", () => this.changed());
    const aside = h("section", { class: "panel launch-preview", "aria-label": "Preview" }, this.result);
    this.showPreviewHint();
    const title = h("div", { class: "row" }, h("h1", {}, "Launch"), h("a", { href: "#/templates" }, "Templates"));
    this.bar = bar;
    this.element = [title, h("div", { class: "launch-columns" }, form, aside)];
  }

  /** Lets no field that gets the focus be hidden by the bar, which stays at the bottom of the window. */
  keepClearOf(bar) {
    const { style } = document.documentElement;
    const observer = new ResizeObserver(() => (style.scrollPaddingBottom = `${bar.offsetHeight + 8}px`));
    observer.observe(bar);
    this.signal.addEventListener("abort", () => {
      observer.disconnect();
      style.scrollPaddingBottom = "";
    });
  }

  showPreviewHint() {
    replace(this.result, h("h2", {}, "Preview"), h("p", { class: "hint" }, "See the command, the hosts and the play tasks before anything starts."));
  }

  async begin(params, before) {
    const source = before?.body ?? Object.fromEntries(params);
    const lists = await this.source.begin(source.project, source.ref);
    if (lists) Object.assign(this, lists);
    const requested = before?.kind ?? params.get("kind");
    const kind = requested in PATHS ? requested : this.listed.playbooks.length ? "playbook" : "adhoc";
    this.choose(kind, false);
    if (before) await this.form.fill(before.body, before.masked);
    else await this.form.fillFrom(params);
  }

  /** Shows another project's playbooks and inventories, with what the forms have otherwise. */
  useLists(found) {
    Object.assign(this, found);
    for (const [kind, form] of Object.entries(this.forms)) {
      this.forms[kind] = this.newForm(kind);
      this.forms[kind].takeOver(form);
    }
    this.choose(this.kind);
  }

  newForm(kind) {
    return new LaunchForm(kind, { ...this, onChange: () => this.changed() });
  }

  choose(kind, isUserChange = true) {
    this.kind = kind;
    for (const input of this.kinds.querySelectorAll("input")) input.checked = input.value === kind;
    this.forms[kind] ??= this.newForm(kind);
    this.form = this.forms[kind];
    replace(this.formSlot, this.form.element);
    this.clearError();
    this.showPreviewHint();
    if (isUserChange) this.changed();
  }

  /** Copies the form to the address, without secrets: the link can be stored and shared. */
  changed() {
    this.outdated.hidden = false;
    if (this.hasFieldErrors && !this.form.invalidFields().length) this.clearError();
    clearTimeout(this.addressTimer);
    this.addressTimer = setTimeout(() => {
      if (this.signal.aborted) return;
      const gone = Object.fromEntries([...new URLSearchParams(location.hash.split("?")[1] ?? "").keys()].map((name) => [name, null]));
      setParams({ ...gone, kind: this.kind, ...this.form.params() });
    }, 300);
  }

  async preview() {
    const body = this.body();
    if (!body) return;
    await this.whileBusy(this.previewButton, "Preparing…", async () => {
      const found = await post("api/preview", { kind: this.kind, request: body });
      if (this.signal.aborted) return;
      this.outdated.hidden = true;
      replace(this.result, h("h2", {}, "Preview"), this.outdated, previewResult(found));
      this.result.parentElement.scrollIntoView({ block: "nearest" });
      if (found.refusal) this.form.showErrors(found.refusal.errors);
    });
  }

  async start() {
    const body = this.body();
    if (!body) return;
    await this.whileBusy(this.startButton, "Starting…", async () => {
      const accepted = await this.send(PATHS[this.kind], body);
      location.hash = `#/tasks/${accepted.task_id}`;
    });
  }

  /** Asks for a name, and saves the form as a template. */
  save() {
    const body = this.body();
    if (body) saveTemplate(this.bar, this.kind, body);
  }

  /** Returns the request's body; null after showing what is wrong with it. */
  body() {
    this.clearError();
    const { body, errors } = this.form.read();
    if (!errors) return body;
    this.explain({ message: `Nothing was sent: ${plural(errors, "field")} must be corrected.`, errors: this.form.invalidFields() });
    return null;
  }

  async whileBusy(button, word, act) {
    const usual = button.textContent;
    for (const one of [this.previewButton, this.startButton]) one.disabled = true;
    button.textContent = word;
    try {
      await act();
    } catch (error) {
      if (!this.signal.aborted && error.status !== 401) this.showError(error);
    } finally {
      for (const one of [this.previewButton, this.startButton]) one.disabled = false;
      button.textContent = usual;
    }
  }

  /** Shows a reply's error at its fields and at the buttons. */
  showError(error) {
    const errors = (error.errors ?? []).map((one) => ({ ...one, field: one.field.replace(/^request\./, "") }));
    this.form.showErrors(errors);
    this.explain({ message: error.message, errors });
  }

  /** Shows at the buttons what is wrong, and the first field with an error. */
  explain(error) {
    replace(this.errorSlot, errorBox(error));
    this.errorSlot.hidden = false;
    this.hasFieldErrors = this.form.focusFirstError();
  }

  clearError() {
    this.errorSlot.hidden = true;
    this.hasFieldErrors = false;
    replace(this.errorSlot);
  }
}
