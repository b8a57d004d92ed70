// The filters of the task list: their form, their form in the address, and the test that a task matches them.

import { session } from "../../api.js";
import { h, newId, replace } from "../../dom.js";
import { STATES } from "../../states.js";

const TYPING_MS = 350;
const KINDS = { adhoc: "Ad-hoc command", playbook: "Playbook", git: "Git update" };
const NAMES = ["text", "state", "kind", "whose", "playbook", "user", "host"];
const TEAM = "My team's";
const MAX_SUGGESTIONS = 200;

/** Whose tasks a session may choose, in words: by default ("") all that it sees; an empty object where these are its own. */
function whoseChoices({ sees, has_team: hasTeam }) {
  if (sees === "own") return {};
  return sees === "all" ? { "": "All", ...(hasTeam ? { team: TEAM } : {}), mine: "Mine" } : { "": TEAM, mine: "Mine" };
}

/** Reads the filters of an address: `{state, user, …}`, without empty and invalid ones. */
export function readFilters(params) {
  const found = Object.fromEntries(NAMES.map((name) => [name, params.get(name)?.trim()]).filter(([, value]) => value));
  if (!(found.state in STATES)) delete found.state;
  if (!(found.kind in KINDS)) delete found.kind;
  const choices = whoseChoices(session);
  if (session.sees === "own") delete found.user;
  if (!Object.hasOwn(choices, found.whose ?? "")) delete found.whose;
  return found;
}

/** Whether a new task may match these filters, which only the service knows: the hosts of a task, and its team. */
export function isUndecided({ host, whose }) {
  return Boolean(host) || whose === "team";
}

/** Whether a task matches the filters, but for those of `isUndecided`. */
export function matches(task, filters) {
  return (
    (filters.whose !== "mine" || task.user === session?.user) &&
    ["state", "kind", "user", "playbook"].every((name) => !filters[name] || task[name] === filters[name]) &&
    asciiLowerCase(task.summary).includes(asciiLowerCase(filters.text ?? ""))
  );
}

// Only ASCII letters, like the service.
function asciiLowerCase(text) {
  return text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

/** The form. onChange(filters, isTyping): isTyping when more changes will follow. */
export class FilterForm {
  constructor(filters, signal, onChange) {
    this.onChange = onChange;
    this.suggested = { playbook: new Set(), user: new Set() };
    this.lists = {};
    this.inputs = {};
    const stateWords = Object.fromEntries(Object.entries(STATES).map(([state, { word }]) => [state, word]));
    const { "": anybody, ...whose } = whoseChoices(session);
    const wide = matchMedia("(min-width: 60rem)");
    const text = this.textInput("text", "Search", { type: "search", placeholder: "Text in the summary" });
    const fields = [
      this.selectInput("state", "State", "Any state", stateWords),
      this.selectInput("kind", "Kind", "Any kind", KINDS),
      anybody ? this.selectInput("whose", "Whose", anybody, whose) : null,
      this.textInput("playbook", "Playbook", { placeholder: "demo/site.yml" }, true),
      anybody ? this.textInput("user", "User", { autocapitalize: "none" }, true) : null,
      this.textInput("host", "Host", { autocapitalize: "none" }),
    ];
    this.count = h("span", { class: "hint" });
    const summary = h("summary", {}, "More filters ", this.count);
    this.details = h("details", {}, summary, h("div", { class: "filters-more" }, fields));
    // On wide pages all filters are shown and nothing can be folded.
    const unfold = () => (this.details.open = this.details.open || wide.matches);
    wide.addEventListener("change", unfold, { signal });
    unfold();
    this.clearButton = h("button", { type: "button", onclick: () => this.clear() }, "Clear");
    const attributes = { class: "filters", role: "search", "aria-label": "Filters of the list" };
    this.element = h("form", attributes, text, this.details, this.clearButton);
    this.element.addEventListener("submit", (event) => (event.preventDefault(), this.emit(true)));
    this.fill(filters);
  }

  /** Offers saved searches, if there are any. searches: as `GET /api/searches` lists them. */
  offer(searches) {
    if (!searches.length) return;
    const id = newId("filter");
    const choose = () => {
      const chosen = searches.find(({ name }) => name === select.value);
      if (!chosen) return;
      this.fill(Object.fromEntries(NAMES.map((name) => [name, chosen[name] ?? ""])));
      this.emit(false);
    };
    const options = searches.map(({ name }) => h("option", { value: name }, name));
    const select = h("select", { id, onchange: choose }, h("option", { value: "" }, ""), options);
    this.details.before(h("div", { class: "field field-saved" }, h("label", { for: id }, "Saved search"), select));
  }

  fill(filters) {
    for (const [name, input] of Object.entries(this.inputs)) input.value = filters[name] ?? "";
    this.updateCount(filters);
  }

  clear() {
    this.fill({});
    this.emit(false);
    this.inputs.text.focus();
  }

  /** Adds the names seen in tasks to the suggestions of the text inputs. */
  suggest(tasks) {
    for (const [name, known] of Object.entries(this.suggested)) {
      const before = known.size;
      for (const task of tasks) if (task[name] && known.size < MAX_SUGGESTIONS) known.add(task[name]);
      if (known.size > before && this.lists[name]) {
        replace(this.lists[name], [...known].sort().map((value) => h("option", { value })));
      }
    }
  }

  textInput(name, word, attributes, isSuggested = false) {
    const id = newId("filter");
    const list = isSuggested ? h("datalist", { id: newId("known") }) : null;
    if (list) this.lists[name] = list;
    const plain = { type: "text", autocomplete: "off", spellcheck: "false", maxlength: 200 };
    const input = h("input", { id, name, list: list?.id, ...plain, ...attributes });
    input.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.emit(true), TYPING_MS);
    });
    this.inputs[name] = input;
    return h("div", { class: `field field-${name}` }, h("label", { for: id }, word), input, list);
  }

  selectInput(name, word, any, options) {
    const id = newId("filter");
    const rows = Object.entries(options).map(([value, text]) => h("option", { value }, text));
    const select = h("select", { id, name, onchange: () => this.emit(false) }, h("option", { value: "" }, any), rows);
    this.inputs[name] = select;
    return h("div", { class: `field field-${name}` }, h("label", { for: id }, word), select);
  }

  emit(isTyping) {
    clearTimeout(this.timer);
    const given = new URLSearchParams(Object.entries(this.inputs).map(([name, input]) => [name, input.value]));
    const filters = readFilters(given);
    this.updateCount(filters);
    this.onChange(filters, isTyping);
  }

  updateCount(filters) {
    const { text, ...others } = filters;
    const count = Object.keys(others).length;
    replace(this.count, count ? `(${count} in use)` : "");
    this.clearButton.hidden = !count && !text;
  }
}
