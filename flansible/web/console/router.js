// The address in the browser: which view it names, and the query that a view keeps in it.

// `#/<view>` of each view that has an address without an id; the first one is shown where nothing else is named.
const ADDRESSES = ["tasks", "search", "hosts", "launch", "templates", "overview", "definitions", "deliveries", "hookcalls", "account", "compare", "login"];

/** Parses the address to `{name, id, params}`; `#/tasks/<id>` is the view `task`, `#/hosts/<name>` the view `host`. */
export function readRoute(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [first, second] = path.split("/").map(decodePart);
  const params = new URLSearchParams(query);
  if (first === "tasks" && second) return { name: "task", id: second, params };
  if (first === "hosts" && second) return { name: "host", id: second, params };
  return { name: ADDRESSES.includes(first) ? first : ADDRESSES[0], id: null, params };
}

/** Decodes a part of the address; a part with a broken escape is returned unchanged. */
function decodePart(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Changes the query of the address without leaving the view; null and "" remove a parameter. isStep: adds an entry to
 * the browser's history, so that its back button undoes it. */
export function setParams(changes, isStep = false) {
  const [path, query = ""] = location.hash.split("?");
  const params = new URLSearchParams(query);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") params.delete(name);
    else params.set(name, value);
  }
  const text = params.toString();
  const address = (path || "#/tasks") + (text ? `?${text}` : "");
  if (isStep) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}
