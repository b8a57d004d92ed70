// Extracts from a module's result why it failed: its message, its output, or its traceback.

import { showInvisible } from "../../format.js";

const MOST_CHARACTERS = 3000;
const MOST_ITEMS = 3;
// Messages that only say that something failed: the output says more.
const EMPTY_WORDS = /^(non-zero return code|MODULE FAILURE|One or more items failed|All items completed)/;

/** Returns `{text, more, code}`: the message, the rest of the output (or ""), the module's exit code (or null). */
export function reason(result) {
  if (!result) return { text: "No result was recorded.", more: "", code: null };
  if (result.censored) return { text: asText(result.censored), more: "", code: null };
  const items = (Array.isArray(result.results) ? result.results : []).filter((item) => item?.failed || item?.unreachable);
  if (items.length) return reasonOfItems(items, result);
  const message = asText(result.msg ?? result.message ?? "").trim();
  const printed = [result.stderr, result.module_stderr, result.exception, result.stdout, result.module_stdout]
    .map((one) => asText(one ?? "").trim())
    .filter((one) => one && one !== message && one !== "(traceback unavailable)");
  const texts = (EMPTY_WORDS.test(message) ? [...printed, message] : [message, ...printed]).filter(Boolean);
  const [text = "The result gives no reason.", more = ""] = texts;
  return { text: cut(text), more: more === message ? "" : cut(more), code: result.rc ?? null };
}

function reasonOfItems(items, result) {
  const lines = items.slice(0, MOST_ITEMS).map((item) => {
    const { text, more } = reason({ ...item, results: undefined });
    return `${itemName(item)}: ${text}${more ? `\n${more}` : ""}`;
  });
  if (items.length > MOST_ITEMS) lines.push(`… and ${items.length - MOST_ITEMS} more items`);
  const message = asText(result.msg ?? "");
  const text = EMPTY_WORDS.test(message) ? "" : message;
  return { text: cut([text, ...lines].filter(Boolean).join("\n")), more: "", code: items[0].rc ?? null };
}

/** Returns the name of a loop's item. */
export function itemName(item) {
  const label = item._ansible_item_label ?? item[item.ansible_loop_var ?? "item"] ?? item.item;
  return label === undefined ? "item" : cut(asText(label), 200);
}

export function asText(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

// Keeps both ends: the end of an output says most, and its beginning says what it is.
function cut(text, most = MOST_CHARACTERS) {
  if (text.length <= most) return showInvisible(text);
  const half = Math.floor(most / 2);
  return showInvisible(`${text.slice(0, half)}\n… ${(text.length - most).toLocaleString()} characters …\n${text.slice(-half)}`);
}
