// The login form; afterwards back to the view that was requested.

import { login, session } from "../../api.js";
import { errorBox, h, newId, replace } from "../../dom.js";
import { elapsed } from "../../format.js";

export async function show(root, route) {
  const next = safeNext(route.params.get("next"));
  if (session) {
    location.replace(next);
    return;
  }
  const user = credential("User", { name: "user", autocomplete: "username", autocapitalize: "none", spellcheck: "false" });
  const password = credential("Password", { name: "password", type: "password", autocomplete: "current-password" });
  const button = h("button", { type: "submit", class: "primary" }, "Log in");
  const trouble = h("div", {});
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    replace(trouble);
    try {
      await login(user.input.value, password.input.value);
      location.hash = next;
    } catch (error) {
      replace(trouble, errorBox({ message: explained(error), errors: error.errors }));
      button.disabled = false;
      password.input.select();
      password.input.focus();
    }
  };
  const form = h("form", { class: "panel", onsubmit: submit }, trouble, user.field, password.field, button);
  replace(root, h("h1", {}, "Flansible"), h("p", { class: "hint" }, "Log in to see and start Ansible runs."), form);
  user.input.focus();
}

/** Returns `next` if it is a view of the console: a link must not redirect to another site through the login. */
function safeNext(next) {
  return next?.startsWith("#/") && !next.startsWith("#/login") ? next : "#/tasks";
}

function credential(word, attributes) {
  const id = newId("login");
  const input = h("input", { id, required: true, type: "text", ...attributes });
  return { input, field: h("div", { class: "field" }, h("label", { for: id }, word), input) };
}

function explained(error) {
  if (error.status === 0) return "The service does not answer. Check that it is running and that you have a network connection.";
  if (error.status === 401) return "User or password is wrong.";
  const when = error.retrySeconds ? `in ${elapsed(error.retrySeconds)}` : "later";
  if (error.status === 429) return `Too many wrong passwords. Try again ${when}.`;
  if (error.status >= 500) return `The service cannot check the password now: ${error.message}`;
  return error.message;
}
