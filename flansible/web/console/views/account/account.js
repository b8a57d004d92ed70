// One's own account: the password, the tokens; for admin, what each user may reach.

import { get, post, put, remove, session, whoami } from "../../api.js";
import { copy, errorBox, h, notify, replace } from "../../dom.js";
import { choiceField, secretField, textField } from "../../fields.js";

export async function show(root, { signal }) {
  const tokens = h("div", {});
  replace(
    root,
    h("h1", {}, `Account of ${session.user}`),
    h("div", { class: "account-forms" }, passwordForm(), h("section", { class: "panel" }, h("h2", {}, "Tokens"), tokens)),
    session.is_admin ? h("section", { class: "panel users" }, h("h2", {}, "Users"), h("p", { class: "hint" }, "Loading …")) : null,
  );
  await showTokens(tokens, signal);
  if (session.is_admin) await showUsers(root.querySelector(".users"), signal);
}

function passwordForm() {
  const current = secretField("current_password", "Password of now", {});
  const first = secretField("new_password", "New password", { hint: "8 characters or more." });
  const second = secretField("repeated", "New password, again", {});
  const errors = h("div", {});
  const submit = async (event) => {
    event.preventDefault();
    for (const field of [current, first, second]) field.setError("");
    if (first.text !== second.text) {
      second.setError("This is not the same.");
      return;
    }
    try {
      await put("api/account/password", { current_password: current.text, new_password: first.text });
      await whoami(); // the session has a new cookie and a new CSRF token
    } catch (error) {
      replace(errors, errorBox(error));
      return;
    }
    replace(errors);
    for (const field of [current, first, second]) field.text = "";
    notify("Password changed. Your other sessions have ended.");
  };
  return h(
    "form",
    { class: "panel", novalidate: true, onsubmit: submit },
    h("h2", {}, "Password"),
    errors,
    current.element,
    first.element,
    second.element,
    h("button", { type: "submit", class: "primary" }, "Change it"),
  );
}

async function showTokens(place, signal, made = null) {
  const { tokens } = await get("api/account/tokens", {}, signal);
  const again = () => showTokens(place, signal);
  const errors = h("div", {});
  const scope = choiceField("scope", "May", [["run", "do what I may"], ["read", "only read"]]);
  const expires = textField("expires", "Ends", { hint: "30d, 12h, a date, or never. Empty: 90 days." });
  const create = async (event) => {
    event.preventDefault();
    try {
      const body = { scope: scope.text || "run", ...(expires.text.trim() ? { expires: expires.text.trim() } : {}) };
      await showTokens(place, signal, await post("api/account/tokens", body));
    } catch (error) {
      replace(errors, errorBox(error));
    }
  };
  const revoke = async (token) => {
    if (!confirm(`Revoke token ${token.id}?`)) return;
    try {
      await remove(`api/account/tokens/${token.id}`);
      notify(`Token ${token.id} revoked`);
      await again();
    } catch (error) {
      replace(errors, errorBox(error));
    }
  };
  const row = (token) =>
    h(
      "tr",
      {},
      h("td", {}, h("code", {}, token.id)),
      h("td", {}, token.scope),
      h("td", {}, token.is_expired ? "expired" : token.expires ? new Date(token.expires).toLocaleString() : "never"),
      h("td", {}, h("button", { type: "button", class: "danger", "aria-label": `Revoke ${token.id}`, onclick: () => revoke(token) }, "Revoke")),
    );
  const heads = ["Id", "May", "Ends", ""].map((word) => h("th", { scope: "col" }, word));
  replace(
    place,
    errors,
    made ? newToken(made) : null,
    tokens.length ? h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, tokens.map(row)))) : h("p", { class: "hint" }, "None. A script needs no password: give it a token."),
    h("form", { novalidate: true, onsubmit: create }, scope.element, expires.element, h("button", { type: "submit" }, "Make a token")),
  );
}

function newToken(made) {
  return h(
    "div",
    { class: "panel new-token", role: "status" },
    h("p", {}, "Copy it now, it is not shown again:"),
    h("p", {}, h("code", {}, made.token)),
    h("button", { type: "button", onclick: () => copy(made.token, "Token") }, "Copy"),
  );
}

async function showUsers(place, signal) {
  const { users } = await get("api/users", {}, signal);
  const heads = ["User", "Role", "Groups", "Tokens", "Is told"].map((word) => h("th", { scope: "col" }, word));
  const row = (one) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, one.user),
      h("td", {}, one.role),
      h("td", {}, one.groups.join(", ")),
      h("td", { class: "number" }, String(one.tokens)),
      h("td", {}, h("ul", { class: "rights" }, one.rights.map((text) => h("li", {}, text)))),
    );
  const table = h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, users.map(row)));
  replace(place, h("h2", {}, "Users"), h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": "Users" }, table));
}
