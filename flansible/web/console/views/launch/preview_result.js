// Shows a preview: whether it is allowed, the command, the hosts and play tasks, and the user's rights.

import { errorBox, h, newId } from "../../dom.js";
import { plural } from "../../format.js";

const MOST_SHOWN = 300;
const MANY = 20; // longer lists may scroll, so the keyboard must reach them

export function previewResult(found) {
  return [
    h("p", { class: `decision ${found.allowed ? "is-allowed" : "is-refused"}` }, found.allowed ? "✓ This is allowed." : "✗ This is not allowed."),
    found.plays && !found.hosts.length ? h("p", { class: "tone-warning" }, "No hosts matched: the run would do nothing.") : null,
    found.refusal ? errorBox(found.refusal) : null,
    found.command ? section("Command", h("pre", { class: "command", tabindex: 0 }, found.command)) : null,
    found.plays ? playsSection(found) : null,
    !found.plays && found.allowed ? h("p", { class: "error-box" }, `The hosts and play tasks are unknown: ${found.detail}.`) : null,
    found.messages.length ? section("Messages", found.messages.map((text) => h("pre", { class: "ansible-message", tabindex: 0 }, text))) : null,
    section("Your rights", h("ul", {}, found.rights.map((text) => h("li", {}, text)))),
  ];
}

function playsSection(found) {
  const tasks = found.plays.reduce((sum, play) => sum + play.play_tasks.length, 0);
  return section(
    `What would run: ${plural(found.hosts.length, "host")}, ${plural(tasks, "play task")}`,
    found.plays.map((play) => playView(play)),
  );
}

function playView(play) {
  const hosts = play.hosts.slice(0, MOST_SHOWN).map((name) => h("li", {}, name));
  const tasks = play.play_tasks.slice(0, MOST_SHOWN).map((task) => h("li", {}, task.name, task.tags.map((tag) => h("span", { class: "tag" }, tag))));
  return h(
    "div",
    { class: "preview-play" },
    h("h4", {}, play.play, play.play === play.pattern ? null : h("span", { class: "hint" }, ` ${play.pattern}`)),
    play.hosts.length ? h("ul", { class: "host-list", "aria-label": "Hosts", tabindex: hosts.length > MANY ? 0 : null }, hosts, over(play.hosts)) : h("p", { class: "tone-warning" }, "No hosts matched."),
    h("ol", { class: "task-list", "aria-label": "Play tasks" }, tasks, over(play.play_tasks)),
  );
}

function over(items) {
  return items.length > MOST_SHOWN ? h("li", { class: "hint" }, `and ${items.length - MOST_SHOWN} more`) : null;
}

function section(title, ...content) {
  const id = newId("section");
  return h("section", { "aria-labelledby": id }, h("h3", { id }, title), content);
}
