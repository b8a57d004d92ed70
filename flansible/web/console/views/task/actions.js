// Cancels a task, or runs it again.

import { post } from "../../api.js";
import { errorBox, h, notify, replace } from "../../dom.js";
import { stateRow } from "../../states.js";

/** Asks for confirmation, then cancels. The dialog is added to `place`. */
export function confirmCancel(run, place) {
  const said = h("div", {});
  const answer = (word, attributes) => h("button", { type: "button", ...attributes }, word);
  const cancel = async (event) => {
    event.currentTarget.disabled = true;
    try {
      await post(`api/ansibletaskcancel/${run.id}?wait=0`);
      dialog.close();
      notify("The task is being canceled");
      await run.refresh();
    } catch (error) {
      replace(said, errorBox(error));
    }
  };
  const words = stateRow(run.task.state).phase === "waiting" ? "It will not start." : "Everything it has started on the control machine is ended. Changes it has already made on hosts stay.";
  const buttons = h("div", { class: "row" }, answer("Cancel the task", { class: "danger", onclick: cancel }), answer("Keep it", { onclick: () => dialog.close(), autofocus: true }));
  const dialog = h("dialog", { class: "confirm", "aria-label": "Cancel this task?" }, h("h2", {}, "Cancel this task?"), h("p", {}, words), said, buttons);
  dialog.addEventListener("close", () => dialog.remove());
  place.append(dialog);
  dialog.showModal();
}

/** Starts the same request again, optionally only on these hosts. With secrets, which are not stored, it opens the launch
 * form to type them again. */
export async function runAgain(run, hosts = null) {
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
  const { task_id: id } = await post(path.replace(/^\//, ""), limit ? { ...body, limit } : body);
  notify("Started again");
  location.hash = `#/tasks/${id}`;
}
