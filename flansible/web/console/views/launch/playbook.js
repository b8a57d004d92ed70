// The playbooks to choose from, each with its description, plays and hosts.

import { session } from "../../api.js";
import { h, newId } from "../../dom.js";
import { textField } from "../../fields.js";

/** listed: `{playbooks, playbook_root}` of the service. `fields` are the request's `playbook_dir` and `playbook`. onChoose(): one of them has changed. */
export class PlaybookChoice {
  constructor({ playbooks, playbook_root: root }, onChoose) {
    this.onChoose = onChoose;
    this.group = newId("playbook");
    this.items = playbooks.map((one) => this.item(one));
    this.fields = [
      textField("playbook_dir", "Directory", { hint: root === "." ? "From the root of the project." : "Empty: playbook_root, from which a relative path starts." }),
      textField("playbook", "Playbook file"),
    ];
    const search = h("input", { type: "search", placeholder: "Name, description or play", "aria-label": "Search playbooks" });
    search.addEventListener("input", () => this.narrow(search.value));
    this.none = h("p", { class: "hint", hidden: playbooks.length > 0 }, playbooks.length ? "No playbook matches." : noPlaybooks(root));
    const list = h("div", { class: "playbooks" }, this.items.map((item) => item.element), this.none);
    this.element = h(
      "fieldset",
      { class: "plain-fieldset" },
      h("legend", {}, "Playbook"),
      playbooks.length > 6 ? search : null,
      list,
      h("div", { class: "field-grid" }, this.fields.map((field) => field.element)),
    );
    for (const field of this.fields) field.input.addEventListener("change", () => this.changed());
  }

  item(one) {
    const input = h("input", { type: "radio", name: this.group });
    input.addEventListener("change", () => {
      this.fields[0].text = one.playbook_dir;
      this.fields[1].text = one.playbook;
      this.changed();
    });
    const plays = one.plays.map((play) => h("span", { class: "play" }, play.play === play.hosts ? play.hosts : [play.play, play.hosts ? ` on ${play.hosts}` : ""]));
    const text = [one.playbook, one.playbook_dir, one.description, ...one.plays.map((play) => play.play)].join(" ").toLowerCase();
    const words = one.encrypted ? "Encrypted with ansible-vault: its plays are unknown." : one.description;
    const description = words ? h("span", { class: "description" }, words) : null;
    const name = h("span", { class: "name" }, one.playbook, h("span", { class: "folder" }, one.playbook_dir));
    return { one, input, text, element: h("label", { class: "playbook" }, input, h("span", {}, name, description, h("span", { class: "plays" }, plays))) };
  }

  narrow(words) {
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    for (const item of this.items) item.element.hidden = !wanted.every((word) => item.text.includes(word));
    this.none.hidden = this.items.some((item) => !item.element.hidden);
  }

  /** Selects in the list the playbook that the fields name. playbook_dir: the absolute path, which only the service knows. */
  mark(playbook_dir = this.fields[0].text.trim(), playbook = this.fields[1].text.trim()) {
    for (const { one, input } of this.items) input.checked = one.playbook === playbook && one.playbook_dir === playbook_dir;
    const chosen = this.items.find(({ input }) => input.checked);
    if (!chosen) return;
    const { element: { parentElement: list, offsetTop: top, offsetHeight: height } } = chosen;
    // Not away from where the user has chosen it.
    if (top < list.scrollTop || top + height > list.scrollTop + list.clientHeight) list.scrollTop = top - 8;
  }

  changed() {
    this.mark();
    this.onChoose();
  }
}

function noPlaybooks(root) {
  const advice = session.is_admin ? "put some there." : "put some there, or ask an admin which ones you may start.";
  return [`No playbooks ${session.is_admin ? "" : "for you "}in `, h("code", {}, root), `: ${advice}`];
}
