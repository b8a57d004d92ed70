// Saves a request as a template: asks for its name, and opens it in the view of definitions.

import { put } from "./api.js";
import { errorBox, h, replace } from "./dom.js";
import { MASK, isHidden } from "./fields.js";

const SECRETS = ["connection_password", "become_password", "vault_password", "private_key", "private_key_passphrase"];

/** Asks in a dialog, which is added to `place`. kind, body: of the request, as it is sent or was recorded. */
export function saveTemplate(place, kind, body) {
  const errors = h("div", {});
  const input = h("input", { id: "template-name", type: "text", autocomplete: "off", spellcheck: "false", autofocus: true });
  const save = h("button", { type: "submit", class: "primary" }, "Save");
  const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const words = h("p", {}, "Others can launch it once you have said who, and what they may set. Secrets are not saved: they become fields of each launch.");
  const form = h("form", { novalidate: true }, h("div", { class: "field" }, h("label", { for: "template-name" }, "Name"), input), errors, h("div", { class: "row" }, save, cancel));
  const dialog = h("dialog", { class: "confirm", "aria-label": "Save as template" }, h("h2", {}, "Save as template"), words, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = input.value.trim();
    if (!name) return replace(errors, errorBox({ message: "Give it a name." }));
    try {
      await put(`api/templates/${encodeURIComponent(name)}`, templateOf(kind, body), { "If-None-Match": "*" });
      dialog.close();
      location.hash = `#/definitions?${new URLSearchParams({ kind: "templates", name })}`;
    } catch (error) {
      replace(errors, errorBox(error));
    }
    return null;
  });
  dialog.addEventListener("close", () => dialog.remove());
  place.append(dialog);
  dialog.showModal();
}

/** The template of a request. What is secret, or was hidden, is left open to each launch. Throws an Error for a request of
 * which another part was hidden: the template would run with the asterisks. */
function templateOf(kind, body) {
  const { secret_vars: secret = {}, ...request } = body;
  const open = SECRETS.filter((name) => name in request);
  for (const name of open) delete request[name];
  const variables = Object.fromEntries(Object.keys(secret).map((name) => [name, { secret: true, required: true }]));
  for (const field of ["extra_vars", "extra_args"]) {
    const given = request[field];
    if (given === null || typeof given !== "object" || Array.isArray(given)) continue;
    request[field] = { ...given };
    for (const [name, value] of Object.entries(given)) {
      if (value !== MASK) continue;
      delete request[field][name];
      variables[name] = { secret: true, required: true };
    }
  }
  const hidden = Object.keys(request).filter((name) => isHidden(request[name]));
  if (hidden.length) throw new Error(`A part of ${hidden.join(", ")} was hidden, and no template can have it. Start it again with that part as a secret variable, and save the new task.`);
  return { kind, request, open, variables };
}
