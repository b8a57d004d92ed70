// The frame around the views: shows the view that the address names, the navigation, the user, and the colour scheme.

import { logout, reviewSession, session, whoami } from "./api.js";
import { errorBox, h, notify, replace } from "./dom.js";
import { readRoute } from "./router.js";

// name -> module, loaded when the view is first shown, and its sheets. A view exports `show(root, route)`.
const VIEWS = {
  tasks: { load: () => import("./views/tasks/tasks.js"), sheets: ["views/tasks/tasks.css"] },
  task: {
    load: () => import("./views/task/task.js"),
    // ansi.css is generated: the classes of coloured output. The sheets after it change its colours.
    sheets: ["ansi.css", "views/task/task.css", "views/task/output.css", "views/task/host_matrix.css", "views/task/timeline.css"],
  },
  search: { load: () => import("./views/search/search_page.js"), sheets: ["views/search/search.css"] },
  hosts: { load: () => import("./views/hosts/hosts.js"), sheets: ["views/hosts/hosts.css"] },
  host: { load: () => import("./views/host/host.js"), sheets: ["views/host/host.css"] },
  compare: { load: () => import("./views/compare/compare.js"), sheets: ["views/compare/compare.css"] },
  launch: { load: () => import("./views/launch/launch.js"), sheets: ["views/launch/launch.css"] },
  templates: { load: () => import("./views/templates/templates.js"), sheets: ["views/templates/templates.css"] },
  overview: { load: () => import("./views/overview/overview.js"), sheets: ["views/overview/overview.css"] },
  definitions: { load: () => import("./views/definitions/definitions.js"), sheets: ["views/definitions/definitions.css"] },
  deliveries: { load: () => import("./views/deliveries/deliveries.js"), sheets: ["views/deliveries/deliveries.css"] },
  hookcalls: { load: () => import("./views/hookcalls/hookcalls.js"), sheets: ["views/hookcalls/hookcalls.css"] },
  account: { load: () => import("./views/account/account.js"), sheets: ["views/account/account.css"] },
  login: { load: () => import("./views/login/login.js"), sheets: ["views/login/login.css"] },
};
const NAVIGATION = [
  ["tasks", "Tasks"],
  ["search", "Search"],
  ["hosts", "Hosts"],
  ["launch", "Launch"],
  ["overview", "Overview"],
  ["definitions", "Definitions"],
];
// Of a user who may launch templates and nothing else.
const ONLY_TEMPLATES = [
  ["templates", "Templates"],
  ["tasks", "Tasks"],
];
const THEMES = ["system", "light", "dark"];

let current = new AbortController();
let hasShown = false;

async function showView() {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  let route = readRoute();
  if (!session && route.name !== "login") {
    const back = location.hash;
    history.replaceState(null, "", `#/login${back.length > 2 ? `?next=${encodeURIComponent(back)}` : ""}`);
    route = readRoute();
  }
  if (session?.launches_only && ["", "#", "#/"].includes(location.hash)) {
    history.replaceState(null, "", "#/templates");
    route = readRoute();
  }
  showHeader(route);
  const main = document.getElementById("main");
  const root = h("div", { class: `view view-${route.name}` });
  replace(main, root);
  try {
    const [view] = await Promise.all([VIEWS[route.name].load(), loadSheets(route.name)]);
    if (signal.aborted) return;
    enableSheets(route.name);
    await view.show(root, { ...route, signal });
    // The focused element left with the last view: keyboard and screen reader continue from here.
    if (hasShown && !signal.aborted && document.activeElement === document.body) main.focus({ preventScroll: true });
    hasShown = true;
  } catch (error) {
    if (!signal.aborted && error.name !== "AbortError" && error.status !== 401) replace(root, errorBox(error));
  }
}

/** Shows the view of a new address. Without a session it asks first: one may have begun elsewhere in this browser. */
async function changeView() {
  if (!session && readRoute().name !== "login") {
    await reviewSession().catch(() => {});
    if (session) return; // shown already
  }
  await showView();
}

function showHeader(route) {
  const top = document.getElementById("top");
  top.hidden = !session;
  if (!session) return;
  const shown = { task: "tasks", compare: "tasks", host: "hosts", deliveries: "definitions", hookcalls: "definitions" }[route.name] ?? route.name;
  const views = session.launches_only ? ONLY_TEMPLATES : NAVIGATION;
  const links = views.filter(([name]) => name !== "launch" || session.may_act).map(([name, word]) =>
    h("a", { href: `#/${name}`, "aria-current": name === shown ? "page" : null }, word),
  );
  links.push(h("a", { href: "api/docs", target: "_blank", rel: "noopener" }, "API"));
  if (session.flower_url) links.push(h("a", { href: session.flower_url, target: "_blank", rel: "noopener" }, "Flower"));
  const nav = document.getElementById("nav");
  replace(nav, links);
  // On a narrow screen the entries are one line that scrolls.
  const current = nav.querySelector("[aria-current]");
  if (current) nav.scrollLeft = current.offsetLeft - nav.offsetLeft - (nav.clientWidth - current.offsetWidth) / 2;
  replace(
    document.getElementById("account"),
    themeButton(),
    h("a", { class: "user", href: "#/account", title: `${session.role}: password and tokens`, "aria-current": route.name === "account" ? "page" : null }, session.user),
    h("button", { type: "button", class: "quiet", onclick: logOut }, "Log out"),
  );
}

function themeButton() {
  const theme = document.documentElement.dataset.theme ?? "system";
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  const change = (event) => {
    setTheme(next);
    event.currentTarget.replaceWith(themeButton());
    document.getElementById("theme").focus();
  };
  return h("button", { type: "button", id: "theme", class: "quiet", onclick: change, "aria-label": `Colours: ${theme}`, title: `Colours: ${theme}` }, h("span", { class: "wide" }, "Colours: "), h("span", { class: "narrow" }, "◐ "), theme);
}

function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("flansible-theme", theme);
  } catch {
    // Without storage the choice lasts until the page is closed.
  }
}

function storedTheme() {
  try {
    return localStorage.getItem("flansible-theme") ?? "system";
  } catch {
    return "system";
  }
}

async function logOut() {
  try {
    await logout();
  } catch (error) {
    notify(error.message);
    return;
  }
  location.hash = "#/login";
}

const sheets = new Map(); // path -> {link, ready}

/** Loads the view's sheets; resolves once all of them are there, or have failed. */
function loadSheets(name) {
  for (const path of VIEWS[name].sheets.filter((path) => !sheets.has(path))) {
    const link = h("link", { rel: "stylesheet", href: `console/${path}` });
    const ready = new Promise((resolve) => ["load", "error"].forEach((event) => link.addEventListener(event, resolve)));
    document.head.append(link);
    sheets.set(path, { link, ready });
  }
  return Promise.all(VIEWS[name].sheets.map((path) => sheets.get(path).ready));
}

/** Enables this view's sheets and disables all others: two views may use one class name for different things. */
function enableSheets(name) {
  for (const [path, { link }] of sheets) if (link.sheet) link.sheet.disabled = !VIEWS[name].sheets.includes(path);
}

async function start() {
  setTheme(storedTheme());
  window.addEventListener("hashchange", changeView);
  window.addEventListener("flansible-session", showView);
  // Loaded while the session is requested: the view is needed in any case. showView reports what fails here.
  const { name } = readRoute();
  VIEWS[name].load().catch(() => {});
  loadSheets(name);
  try {
    // The server marks the page when the request had no session: then there is none to request.
    if (document.documentElement.dataset.session !== "none") await whoami();
  } catch (error) {
    const again = h("button", { type: "button", onclick: () => location.reload() }, "Try again");
    replace(document.getElementById("main"), errorBox(error), again);
    return;
  }
  await showView();
}

start();
