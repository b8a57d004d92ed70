// The choice of stored secrets that the user may use.

import { h } from "../../dom.js";
import { Field } from "../../fields.js";

const MOST_ROWS = 6;
const WORDS = { ssh: "ssh login", become: "become password", vault: "vault password", environment: "environment", http: "token" };

/** Creates the field of the request's `credentials`; null where there is none to choose. credentials: as the API lists them. */
export function credentialsField(credentials) {
  const usable = credentials.filter(({ kind }) => kind in WORDS);
  if (!usable.length) return null;
  const options = usable.map(({ name, kind }) => h("option", { value: name }, `${name}: ${WORDS[kind]}`));
  const select = h("select", { multiple: true, size: Math.min(MOST_ROWS, Math.max(2, options.length)) }, options);
  const field = new Field("credentials", "Credentials", select, { hint: "Stored secrets, by name. Several with Ctrl or Cmd." });
  const chosen = () => [...select.selectedOptions].map(({ value }) => value);
  const choose = (names) => options.forEach((option) => (option.selected = names.includes(option.value)));
  const isKnown = (name) => usable.some((one) => one.name === name);
  field.read = () => (chosen().length ? chosen() : undefined);
  field.write = (value) => Array.isArray(value) && value.every(isKnown) && (choose(value), true);
  Object.defineProperty(field, "text", { get: () => chosen().join(","), set: (text) => choose(text.split(",")) });
  return field;
}
