// Cancels a task, or runs it again; both ask first.

import { post } from "../../api.js";
import { errorBox, h, notify, replace } from "../../dom.js";
import { listed, plural } from "../../format.js";
import { startOnce } from "../../start_once.js";
import { stateRow } from "../../states.js";

const SHOWN_HOSTS = 20;

/** Asks in a dialog, which is added to `place`. act(): what the first button does; the dialog shows its error. */
function ask(place, { title, words, button, keep, classes, act }) {
  const errorSlot = h("div", {});
  const pressed = async (event) => {
    const { currentTarget } = event;
    currentTarget.disabled = true;
    try {
      await act();
      dialog.close();
    } catch (error) {
      replace(errorSlot, errorBox(error));
      currentTarget.disabled = false;
    }
  };
  const answer = (word, attributes) => h("button", { type: "button", ...attributes }, word);
  const buttons = h("div", { class: "row" }, answer(button, { class: classes, onclick: pressed }), answer(keep, { onclick: () => dialog.close(), autofocus: true }));
  const dialog = h("dialog", { class: "confirm", "aria-label": title }, h("h2", {}, title), words, errorSlot, buttons);
  dialog.addEventListener("close", () => dialog.remove());
  place.append(dialog);
  dialog.showModal();
}

/** Cancels, after a question. */
export function confirmCancel(run, place) {
  const words = stateRow(run.task.state).phase === "waiting" ? "It will not start." : "Everything it has started on the control machine is ended. Changes it has already made on hosts stay.";
  const act = async () => {
    await post(`api/ansibletaskcancel/${run.id}?wait=0`);
    notify("The task is being canceled");
    await run.refresh();
  };
  ask(place, { title: "Cancel this task?", words: h("p", {}, words), button: "Cancel the task", keep: "Keep it", classes: "danger", act });
}

/** Sends the same request again after a question, optionally only for these hosts. With secrets, which are not stored, it
 * opens the launch form to type them again. */
export async function confirmAgain(run, place, hosts = null) {
  const { path, body, masked } = await run.request();
  const limit = hosts?.toSorted().join(",");
  if (masked.length && run.task.kind === "git") {
    throw new Error("Its secrets are not stored. Send it again with the curl command on the Request tab.");
  }
  if (masked.length) {
    const params = new URLSearchParams({ from: run.id, ...(limit ? { limit } : {}) });
    location.hash = `#/launch?${params}`;
    return;
  }
  const send = startOnce();
  const act = async () => {
    const { task_id: id } = await send(path.replace(/^\//, ""), limit ? { ...body, limit } : body);
    notify("Started again");
    location.hash = `#/tasks/${id}`;
  };
  const words = [
    h("p", {}, body.check ? "A new task predicts again what this would change:" : "A new task runs this again:"),
    h("p", { class: "confirm-summary" }, h("bdi", {}, run.task.summary.replace(`${run.task.user}: `, ""))),
    hosts ? h("p", {}, `Only on ${plural(hosts.length, "host")}: `, h("bdi", {}, listed(hosts.toSorted(), SHOWN_HOSTS))) : null,
  ];
  ask(place, { title: "Run it again?", words, button: "Run again", keep: "Not now", classes: "primary", act });
}
