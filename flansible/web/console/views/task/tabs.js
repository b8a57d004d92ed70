// Tabs by the ARIA pattern: arrow keys move between them, the Tab key reaches only the selected one.

import { h } from "../../dom.js";

export class Tabs {
  /** tabs: `[[name, word, element], …]`. onSelect(name): the user has selected a tab. */
  constructor(label, tabs, onSelect) {
    this.names = tabs.map(([name]) => name);
    this.onSelect = onSelect;
    this.buttons = tabs.map(([name, word]) => this.#button(name, word));
    this.panels = tabs.map(([name, , element]) => h("div", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, hidden: true }, element));
    const list = h("div", { role: "tablist", class: "tabs", "aria-label": label, onkeydown: (event) => this.#key(event) }, this.buttons);
    this.element = h("section", { class: "panel tabbed" }, list, this.panels);
  }

  show(name) {
    this.chosen = name;
    this.names.forEach((one, i) => {
      const isChosen = one === name;
      this.buttons[i].setAttribute("aria-selected", String(isChosen));
      this.buttons[i].tabIndex = isChosen ? 0 : -1;
      this.panels[i].hidden = !isChosen;
    });
  }

  #button(name, word) {
    const attributes = { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}` };
    return h("button", { ...attributes, onclick: () => this.onSelect(name) }, word);
  }

  #key(event) {
    const at = this.names.indexOf(this.chosen);
    const last = this.names.length - 1;
    const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.buttons[to].focus();
    this.onSelect(this.names[to]);
  }
}
