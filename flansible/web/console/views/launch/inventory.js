// The inventories that the user may use, and the groups and hosts of the chosen one.

import { get } from "../../api.js";
import { errorBox, h, newId, replace } from "../../dom.js";
import { plural } from "../../format.js";
import { Field } from "../../fields.js";

const OTHER = " other"; // begins with a space, which no path does: the form trims them
const MOST_HOSTS = 200;

/** `field` is the request's `inventory`. onPick(name): a group or host was clicked. */
export class InventoryChoice {
  constructor(inventories, { mayNameAny, onPick, placeOf, query, signal }) {
    Object.assign(this, { inventories, onPick, placeOf, query, signal });
    const known = inventories.map((one) => h("option", { value: one.inventory }, nameOf(one)));
    const isDefaultMine = mayNameAny || inventories.some((one) => one.is_default);
    const fallback = inventories.find((one) => one.is_default);
    const first = isDefaultMine ? h("option", { value: "" }, fallback ? `Default: ${fallback.name}` : "Ansible's own default") : null;
    this.select = h("select", {}, first, known, h("option", { value: OTHER }, "Another path…"));
    this.other = h("input", { type: "text", autocomplete: "off", spellcheck: "false", "aria-label": "Path of the inventory", hidden: true });
    this.field = new Field("inventory", "Inventory", this.select);
    this.field.element.insertBefore(this.other, this.field.hint);
    this.field.read = () => this.value || undefined;
    this.field.write = (value) => typeof value === "string" && (this.choose(value), true);
    Object.defineProperty(this.field, "text", { get: () => this.value, set: (text) => this.choose(text) });
    this.select.addEventListener("change", () => this.changed());
    this.other.addEventListener("change", () => this.changed());
    this.build();
  }

  build() {
    this.body = h("div", {});
    this.details = h("details", { class: "hosts" }, h("summary", {}, "Groups and hosts"), this.body);
    this.details.addEventListener("toggle", () => this.details.open && this.load());
    this.element = h("div", {}, this.field.element, this.details);
  }

  get value() {
    return this.select.value === OTHER ? this.other.value.trim() : this.select.value;
  }

  choose(value) {
    const isKnown = [...this.select.options].some((option) => option.value === value && value !== OTHER);
    this.select.value = isKnown ? value : OTHER;
    if (!isKnown) this.other.value = value;
    this.changed();
  }

  changed() {
    this.other.hidden = this.select.value !== OTHER;
    this.loaded = null;
    replace(this.body);
    if (this.details.open) this.load();
  }

  /** Returns the inventory to list: the chosen one, or the default. */
  requestedInventory() {
    const given = this.value || this.inventories.find((one) => one.is_default)?.inventory || "";
    return this.placeOf(given);
  }

  async load() {
    const requested = this.requestedInventory();
    if (!requested) return replace(this.body, h("p", { class: "hint" }, "Choose an inventory to see its hosts."));
    if (this.loaded === requested) return undefined;
    this.loaded = requested;
    replace(this.body, h("p", { class: "hint", role: "status" }, "Ansible reads the inventory…"));
    try {
      const [found] = (await get("api/listinventories", { ...(requested.startsWith("/") ? {} : this.query()), inventory: requested }, this.signal)).inventories;
      if (this.loaded === requested) this.show(found);
    } catch (error) {
      if (this.signal.aborted) return undefined;
      this.loaded = null;
      replace(this.body, errorBox(error));
    }
    return undefined;
  }

  show(found) {
    const messages = (found.messages ?? []).map((text) => h("pre", { class: "ansible-message", tabindex: 0 }, text));
    if (!found.hosts) return replace(this.body, h("p", {}, found.detail ?? "The service gave no details."), messages);
    const grouped = Object.entries(found.groups).map(([name, hosts]) => this.group(name, hosts));
    const rest = found.hosts.filter((host) => !Object.values(found.groups).some((hosts) => hosts.includes(host)));
    return replace(
      this.body,
      h("p", { class: "hint" }, `${plural(found.hosts.length, "host")}. Click a name to put it into the form.`),
      grouped,
      rest.length ? this.hosts(rest) : null,
      messages,
    );
  }

  group(name, hosts) {
    const id = newId("group");
    const head = h("div", { class: "group-name", id }, this.chip(name), h("span", { class: "hint" }, plural(hosts.length, "host")));
    return h("div", { class: "group", role: "group", "aria-labelledby": id }, head, this.hosts(hosts));
  }

  hosts(names) {
    const more = names.length - MOST_HOSTS;
    const chips = names.slice(0, MOST_HOSTS).map((name) => this.chip(name));
    return h("div", { class: "chips" }, chips, more > 0 ? h("span", { class: "hint" }, `and ${plural(more, "more host")}`) : null);
  }

  chip(name) {
    return h("button", { type: "button", class: "chip", onclick: () => this.onPick(name) }, name);
  }
}

function nameOf(one) {
  return `${one.name}${one.exists ? "" : " (missing)"}`;
}
