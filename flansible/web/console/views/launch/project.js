// The project that a request is of, and the ref of it; its playbooks and inventories are those of that commit.

import { get } from "../../api.js";
import { errorBox, h, replace } from "../../dom.js";
import { choiceField, textField } from "../../fields.js";

/** projects: the definitions that the user may read. onLoaded({listed, inventories}): for the project and ref chosen now. */
export class ProjectChoice {
  constructor(projects, own, signal, onLoaded) {
    Object.assign(this, { projects, own, signal, onLoaded });
    const choices = [["", "None: playbook_root"], ...projects.map(({ name }) => [name, name])];
    this.project = choiceField("project", "Project", choices, { parse: (text) => text || undefined });
    this.ref = textField("ref", "Ref", { hint: "Branch, tag or commit. Empty: the project's own." });
    this.fields = [this.project, this.ref];
    this.status = h("div", { role: "status" });
    this.element = h("div", { class: "panel", hidden: !projects.length }, h("div", { class: "field-grid" }, this.fields.map(({ element }) => element)), this.status);
    this.project.input.addEventListener("change", () => this.changed());
    this.ref.input.addEventListener("change", () => this.changed());
  }

  /** The parameters of lists. */
  get query() {
    const [project, ref] = [this.project.text, this.ref.text.trim()];
    return project ? { project, ...(ref ? { ref } : {}) } : {};
  }

  /** Takes project and ref of an address or a stored request; returns the lists for them. */
  begin(project, ref) {
    if (project && !this.projects.some(({ name }) => name === project)) this.project.input.append(h("option", { value: project }, project));
    this.project.text = project ?? "";
    this.ref.text = ref ?? "";
    return this.load();
  }

  async changed() {
    const found = await this.load();
    if (found && !this.signal.aborted) this.onLoaded(found);
  }

  /** Returns the lists; empty ones with the reason on the page where there are none; null if another choice came first. */
  async load() {
    const { query } = this;
    const key = JSON.stringify(query);
    this.requested = key;
    this.ref.element.hidden = !query.project;
    replace(this.status);
    if (!query.project) return this.own;
    replace(this.status, h("p", { class: "hint" }, "A worker looks for the commit…"));
    try {
      const [listed, inventories] = await Promise.all([get("api/listplaybooks", query, this.signal), get("api/listinventories", query, this.signal)]);
      if (this.requested !== key) return null;
      replace(this.status, h("p", { class: "hint" }, "Commit ", h("code", {}, listed.commit.slice(0, 12)), listed.ref ? ` of ${listed.ref}` : ""));
      return { listed, inventories: [...inventories.inventories, ...this.own.inventories] };
    } catch (error) {
      if (this.signal.aborted || this.requested !== key) return null;
      replace(this.status, errorBox(error));
      return { listed: { playbooks: [], playbook_root: "." }, inventories: this.own.inventories };
    }
  }
}
