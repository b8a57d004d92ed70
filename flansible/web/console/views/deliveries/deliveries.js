// Deliveries of notifications: what was sent to whom, each with its attempts, and a button to send it again.

import { get, post, session } from "../../api.js";
import { errorBox, h, notify, replace } from "../../dom.js";
import { setParams } from "../../router.js";

const STATES = ["", "pending", "delivered", "dead"];

/** route.params: `state` and `notification`, as the API's filters. */
export async function show(root, { params, signal }) {
  await new Deliveries(root, params, signal).load();
}

class Deliveries {
  constructor(root, params, signal) {
    Object.assign(this, { signal, state: params.get("state") ?? "", notification: params.get("notification") ?? "" });
    this.list = h("div", {});
    const options = STATES.map((state) => h("option", { value: state, selected: state === this.state }, state || "any"));
    const select = h("select", { id: "delivery-state" }, options);
    select.addEventListener("change", () => {
      this.state = select.value;
      setParams({ state: this.state });
      this.load();
    });
    const filters = h(
      "div",
      { class: "row title" },
      h("a", { href: "#/definitions?kind=notifications" }, "Notifications"),
      h("label", { for: "delivery-state" }, "State"),
      select,
      h("button", { type: "button", onclick: () => this.load() }, "Reload"),
    );
    replace(root, h("h1", {}, "Deliveries"), filters, this.list);
  }

  async load(before = null, shown = []) {
    try {
      const page = await get("api/deliveries", { state: this.state, notification: this.notification, before }, this.signal);
      const items = [...shown, ...page.items];
      const more = page.next_before === null ? null : h("button", { type: "button", onclick: () => this.load(page.next_before, items) }, "More");
      replace(this.list, items.length ? this.table(items) : h("div", { class: "panel" }, h("p", {}, "None yet.")), more);
    } catch (error) {
      if (!this.signal.aborted) replace(this.list, errorBox(error));
    }
  }

  table(items) {
    const words = ["Time", "Notification", "Event", "Task", "State", "Attempts", ""].map((word) => h("th", { scope: "col" }, word));
    const body = h("tbody", {}, items.map((one) => this.row(one)));
    return h("div", { class: "panel scroll", role: "region", tabindex: 0, "aria-label": "Deliveries" }, h("table", {}, h("thead", {}, h("tr", {}, words)), body));
  }

  row(one) {
    const task = one.task_id ? h("a", { href: `#/tasks/${one.task_id}` }, one.task_id.slice(0, 8)) : null;
    const last = one.attempts.at(-1);
    const attempts = h("details", {}, h("summary", {}, last ? `${one.attempts.length}: ${last.detail}` : "none yet"), h("ol", {}, one.attempts.map(attemptLine)));
    const again = h("button", { type: "button", class: "quiet", "aria-label": `Deliver ${one.event} of ${one.task_id.slice(0, 8)} again`, onclick: () => this.redeliver(one) }, "Deliver again");
    return h(
      "tr",
      {},
      h("td", {}, new Date(one.created_at).toLocaleString()),
      h("td", {}, one.notification ?? "callback"),
      h("td", {}, one.event),
      h("td", {}, task),
      h("td", { class: `delivery-${one.state}` }, one.state, one.next_at ? h("span", { class: "hint" }, ` next ${new Date(one.next_at).toLocaleTimeString()}`) : null),
      h("td", {}, attempts),
      h("td", {}, session.may_act ? again : null),
    );
  }

  async redeliver(one) {
    try {
      await post(`api/deliveries/${one.delivery_id}/redeliver`);
    } catch (error) {
      notify(error.message);
      return;
    }
    notify("It is sent again");
    await this.load();
  }
}

function attemptLine(attempt) {
  return h("li", {}, `${new Date(attempt.at).toLocaleString()}: ${attempt.detail} (${attempt.seconds} s)`);
}
