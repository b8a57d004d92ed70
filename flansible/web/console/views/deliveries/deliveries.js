// Deliveries of notifications: what was sent to whom, each with its attempts, and a button to send it again.

import { post, session } from "../../api.js";
import { h, notify } from "../../dom.js";
import { moment } from "../../format.js";
import { definitionNames, LogPage, shortTaskLink } from "../../log_page.js";

const STATES = { pending: "tone-info", delivered: "tone-success", dead: "tone-danger" };

/** route.params: `state` and `notification`, as the API's filters. */
export async function show(root, { params, signal }) {
  const page = new LogPage(root, params, signal, {
    title: "Deliveries",
    path: "api/deliveries",
    kind: ["notifications", "Notifications"],
    filters: { notification: ["Notification", await definitionNames("notifications", signal)], state: ["State", Object.keys(STATES)] },
    heads: ["Time", "Notification", "Event", "Task", "State", "Attempts", ""],
    row: (one) => cells(one, page),
  });
  await page.load();
}

function cells(one, page) {
  const last = one.attempts.at(-1);
  const attempts = h("details", {}, h("summary", {}, last ? `${one.attempts.length}: ${last.detail}` : "none yet"), h("ol", {}, one.attempts.map(attemptLine)));
  const again = h("button", { type: "button", class: "quiet", "aria-label": `Deliver ${one.event} of ${one.task_id.slice(0, 8)} again`, onclick: () => redeliver(one, page) }, "Deliver again");
  const next = one.next_at ? h("div", { class: "hint" }, "next ", moment(one.next_at)) : null;
  return [
    moment(one.created_at),
    one.notification ?? "callback",
    one.event,
    shortTaskLink(one.task_id),
    [h("span", { class: `badge ${STATES[one.state]}` }, one.state), next],
    attempts,
    session.may_act ? again : null,
  ];
}

async function redeliver(one, page) {
  try {
    await post(`api/deliveries/${one.delivery_id}/redeliver`);
  } catch (error) {
    notify(error.message);
    return;
  }
  notify("It is sent again");
  await page.load();
}

function attemptLine(attempt) {
  return h("li", {}, moment(attempt.at), `: ${attempt.detail} (${attempt.seconds} s)`);
}
