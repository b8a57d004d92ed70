// What can be done with a task: cancel it, run it again.

import { post } from "../../api.js";
import { faultBox, h, notice, replace } from "../../dom.js";
import { stateRow } from "../../states.js";

/** Ask, then cancel. Added to `place`, as a dialog is part of the view. */
export function askToCancel(run, place) {
  const said = h("div", {});
  const answer = (word, attributes) => h("button", { type: "button", ...attributes }, word);
  const cancel = async (event) => {
    event.currentTarget.disabled = true;
    try {
      await post(`api/ansibletaskcancel/${run.id}?wait=0`);
      dialog.close();
      notice("The task is being canceled");
      await run.refresh();
    } catch (error) {
      replace(said, faultBox(error));
    }
  };
  const words = stateRow(run.task.state).phase === "waiting" ? "It will not start." : "Everything it has started on this machine is ended. What it has done on hosts stays done.";
  const buttons = h("div", { class: "row" }, answer("Cancel the task", { class: "danger", onclick: cancel }), answer("Keep it", { onclick: () => dialog.close(), autofocus: true }));
  const dialog = h("dialog", { class: "confirm", "aria-label": "Cancel this task?" }, h("h2", {}, "Cancel this task?"), h("p", {}, words), said, buttons);
  dialog.addEventListener("close", () => dialog.remove());
  place.append(dialog);
  dialog.showModal();
}

/** The same again, perhaps on these hosts only; where secrets were left out, by way of the form, to type them there. */
export async function runAgain(run, hosts = null) {
  const { path, body, masked } = await run.request();
  const limit = hosts?.toSorted().join(",");
  if (masked.length && run.task.kind === "git") {
    throw new Error("Its secrets are not kept: send it again with the curl command of the tab Request.");
  }
  if (masked.length) {
    const params = new URLSearchParams({ from: run.id, ...(limit ? { limit } : {}) });
    location.hash = `#/launch?${params}`;
    return;
  }
  const { task_id: id } = await post(path.replace(/^\//, ""), limit ? { ...body, limit } : body);
  notice("Started again");
  location.hash = `#/tasks/${id}`;
}
