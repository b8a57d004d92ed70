// Calls of webhooks: who called, what became of it and why, and a button to start the template once more.

import { session } from "../../api.js";
import { h, notify } from "../../dom.js";
import { moment } from "../../format.js";
import { definitionNames, LogPage, shortTaskLink } from "../../log_page.js";
import { startOnce } from "../../start_once.js";

const TONES = { waiting: "info", starting: "info", merged: "neutral", started: "success", ignored: "neutral", refused: "danger" };

/** route.params: `webhook`, as the API's filter. */
export async function show(root, { params, signal }) {
  const page = new LogPage(root, params, signal, {
    title: "Calls of webhooks",
    path: "api/hookcalls",
    kind: ["webhooks", "Webhooks"],
    filters: { webhook: ["Webhook", await definitionNames("webhooks", signal)] },
    heads: ["Time", "Outcome", "Task", "Webhook", "Event", "From", ""],
    row: cells,
  });
  await page.load();
}

function cells(one) {
  const send = startOnce();
  const again = h("button", { type: "button", class: "quiet", "aria-label": `Start the call of ${one.webhook} again`, onclick: (event) => startAgain(one, event.currentTarget, send) }, "Start again");
  return [
    moment(one.received_at),
    [h("span", { class: `badge tone-${TONES[one.outcome]}` }, one.outcome), hint(one.reason), one.starts_at ? hint("until ", moment(one.starts_at)) : null],
    shortTaskLink(one.task_id),
    one.webhook,
    [h("bdi", {}, one.event), hint(one.ref), hint(one.commit.slice(0, 12))],
    [one.address, hint(one.sender_id)],
    session.may_act ? again : null,
  ];
}

function hint(...words) {
  return words[0] ? h("div", { class: "hint" }, h("bdi", {}, words)) : null;
}

async function startAgain({ webhook, call_id: id }, button, send) {
  if (!confirm(`Start the template of ${webhook} with the values of this call, whatever its filters say?`)) return;
  button.disabled = true;
  try {
    const { task_id: task } = await send(`api/hookcalls/${id}/again`);
    location.hash = `#/tasks/${task}`;
  } catch (error) {
    notify(error.message);
    button.disabled = false;
  }
}
