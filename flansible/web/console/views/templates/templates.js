// The templates that the user may launch: a button for each, and a form for what it leaves open.

import { get } from "../../api.js";
import { errorBox, focusFirst, h, replace } from "../../dom.js";
import { setParams } from "../../router.js";
import { SchemaForm } from "../../schema_form.js";
import { startOnce } from "../../start_once.js";

const GROUPS = ["extra_vars", "secret_vars"];

/** route.params: `name` of the template whose form is open. */
export async function show(root, { params, signal }) {
  await new Templates(root, signal).open(params.get("name"));
}

class Templates {
  constructor(root, signal) {
    Object.assign(this, { signal, opening: new AbortController() });
    this.content = h("div", {});
    replace(root, h("h1", {}, "Templates"), this.content);
  }

  async open(name) {
    setParams({ name });
    this.opening.abort();
    this.opening = new AbortController();
    const signal = AbortSignal.any([this.opening.signal, this.signal]);
    try {
      if (name) this.showForm(await get(`api/templates/${encodeURIComponent(name)}`, {}, signal));
      else this.showList(await this.load(signal));
    } catch (error) {
      if (!signal.aborted) replace(this.content, errorBox(error));
    }
  }

  async load(signal) {
    const found = [];
    let after = null;
    do {
      const page = await get("api/templates", { after, limit: 1000 }, signal);
      found.push(...page.items);
      after = page.next_after;
    } while (after !== null);
    return found.filter((template) => template.may_launch);
  }

  showList(found) {
    const card = (template) =>
      h(
        "li",
        { class: "panel template" },
        h("div", {}, h("h2", {}, template.name), template.description ? h("p", {}, template.description) : null),
        h("button", { type: "button", class: "primary", "aria-label": `Run ${template.name}`, onclick: () => this.open(template.name) }, "Run"),
      );
    replace(this.content, found.length ? h("ul", { class: "templates" }, found.map(card)) : h("p", { class: "panel" }, "There is no template that you may launch."));
  }

  showForm(template) {
    const form = new LaunchFields(template.launch_schema, template.request);
    const errors = h("div", {});
    const start = h("button", { type: "submit", class: "primary" }, "Start");
    const back = h("button", { type: "button", onclick: () => this.open(null) }, "All templates");
    const element = h(
      "form",
      { class: "panel", novalidate: true },
      h("h2", {}, template.name),
      template.description ? h("p", {}, template.description) : null,
      form.isEmpty ? h("p", { class: "hint" }, "There is nothing to fill in.") : null,
      form.element,
      errors,
      h("div", { class: "row" }, start, back),
    );
    const send = startOnce();
    element.addEventListener("submit", async (event) => {
      event.preventDefault();
      const { body, errors: count } = form.read();
      if (count) return;
      start.disabled = true;
      replace(errors);
      try {
        const accepted = await send(`api/templates/${encodeURIComponent(template.name)}/launch`, body);
        location.hash = `#/tasks/${accepted.task_id}`;
      } catch (error) {
        if (!this.signal.aborted) replace(errors, errorBox({ message: error.message, errors: form.showErrors(error.errors ?? []) }));
      }
      start.disabled = false;
    });
    const problems = form.showErrors(template.choices_problems);
    if (problems.length) replace(errors, errorBox({ message: "Some choices cannot be read now.", errors: problems }));
    replace(this.content, element);
    focusFirst(element);
  }
}

/** The fields of a launch: those of the request, its variables, and its secret variables. */
class LaunchFields {
  /** request: of the template; what it sets is shown where it is open. */
  constructor(schema, request) {
    const { extra_vars: variables, secret_vars: secrets, ...plain } = schema.properties;
    const schemas = [
      ["", { ...schema, properties: plain }],
      ["extra_vars", variables],
      ["secret_vars", secrets],
    ];
    this.forms = schemas.filter(([, one]) => Object.keys(one?.properties ?? {}).length).map(([group, one]) => [group, new SchemaForm({ $defs: schema.$defs, ...one })]);
    for (const [group, form] of this.forms) {
      const own = group ? request[group] : request;
      form.fill({ ...(Array.isArray(own) ? {} : own), ...(group ? defaults(schema.properties[group]) : {}) }, []);
    }
    this.element = h("div", {}, this.forms.map(([, form]) => form.element));
  }

  get isEmpty() {
    return !this.forms.length;
  }

  /** Reads what was changed: for the rest the template has the value that is shown. */
  read() {
    const body = {};
    let errors = 0;
    for (const [group, form] of this.forms) {
      const found = form.readChanges();
      errors += found.errors;
      if (!group) Object.assign(body, found.body);
      else if (Object.keys(found.body).length) body[group] = found.body;
    }
    return { body, errors };
  }

  /** Shows errors at their fields; returns those that belong to none. */
  showErrors(errors) {
    return errors.filter(({ field, message }) => {
      const group = GROUPS.find((name) => field.startsWith(`${name}.`)) ?? "";
      const form = this.forms.find(([name]) => name === group)?.[1];
      const own = group ? field.slice(group.length + 1) : field;
      return !form || form.showErrors([{ field: own, message }]).length > 0;
    });
  }
}

function defaults(schema) {
  return Object.fromEntries(Object.entries(schema.properties).filter(([, one]) => "default" in one).map(([name, one]) => [name, one.default]));
}
