// What a module's result says of why it failed, for people: its message, or what it printed, or where it broke.

const MOST_CHARACTERS = 3000;
const MOST_ITEMS = 3;

/** `{text, more, code}`: the message in short, what else was printed (or ""), the module's exit code (or null). */
export function reason(result) {
  if (!result) return { text: "No result was recorded.", more: "", code: null };
  if (result.censored) return { text: asText(result.censored), more: "", code: null };
  const items = (Array.isArray(result.results) ? result.results : []).filter((item) => item?.failed || item?.unreachable);
  if (items.length) return reasonOfItems(items, result);
  const message = asText(result.msg ?? result.message ?? "").trim();
  const printed = [result.stderr, result.module_stderr, result.exception, result.stdout, result.module_stdout]
    .map((one) => asText(one ?? "").trim())
    .filter((one) => one && one !== message && one !== "(traceback unavailable)");
  const text = message || firstLine(printed[0]) || "It says nothing of why.";
  return { text: cut(text), more: cut(printed.find((one) => one !== text) ?? ""), code: result.rc ?? null };
}

function reasonOfItems(items, result) {
  const lines = items.slice(0, MOST_ITEMS).map((item) => {
    const { text, more } = reason({ ...item, results: undefined });
    return `${itemName(item)}: ${text}${more ? `\n${more}` : ""}`;
  });
  if (items.length > MOST_ITEMS) lines.push(`… and ${items.length - MOST_ITEMS} more items`);
  const text = asText(result.msg ?? "") || `${items.length} items failed`;
  return { text: cut(text), more: cut(lines.join("\n")), code: items[0].rc ?? null };
}

/** What an item of a loop is called. */
export function itemName(item) {
  const label = item._ansible_item_label ?? item[item.ansible_loop_var ?? "item"] ?? item.item;
  return label === undefined ? "item" : cut(asText(label), 200);
}

export function asText(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function firstLine(text = "") {
  return text.split("\n", 1)[0];
}

// The end of what was printed says more than its beginning, and the beginning says what it is.
function cut(text, most = MOST_CHARACTERS) {
  if (text.length <= most) return text;
  const half = Math.floor(most / 2);
  return `${text.slice(0, half)}\n… ${(text.length - most).toLocaleString()} characters …\n${text.slice(-half)}`;
}
