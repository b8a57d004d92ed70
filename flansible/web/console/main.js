// The frame around the views: shows the view that the address names; navigation, who is logged in, light or dark.

import { logout, session, whoami } from "./api.js";
import { faultBox, h, notice, replace } from "./dom.js";
import { readRoute } from "./router.js";

// name -> module, loaded when the view is first shown, and its sheets. A view exports `show(root, route)`.
const VIEWS = {
  tasks: { load: () => import("./views/tasks/tasks.js"), sheets: ["views/tasks/tasks.css"] },
  task: {
    load: () => import("./views/task/task.js"),
    // ansi.css is generated: the classes of coloured output. The sheets after it change its colours.
    sheets: ["ansi.css", "views/task/task.css", "views/task/output.css", "views/task/host_matrix.css", "views/task/timeline.css"],
  },
  launch: { load: () => import("./views/launch/launch.js"), sheets: ["views/launch/launch.css"] },
  overview: { load: () => import("./views/overview/overview.js"), sheets: ["views/overview/overview.css"] },
  login: { load: () => import("./views/login/login.js"), sheets: ["views/login/login.css"] },
};
const NAVIGATION = [
  ["tasks", "Tasks"],
  ["launch", "Launch"],
  ["overview", "Overview"],
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
  showFrame(route);
  const main = document.getElementById("main");
  const root = h("div", { class: `view view-${route.name}` });
  replace(main, root);
  try {
    const [view] = await Promise.all([VIEWS[route.name].load(), loadSheets(route.name)]);
    if (signal.aborted) return;
    enableSheets(route.name);
    await view.show(root, { ...route, signal });
    // What had the focus went with the last view: a keyboard goes on from here, a screen reader says where it is.
    if (hasShown && !signal.aborted && document.activeElement === document.body) main.focus({ preventScroll: true });
    hasShown = true;
  } catch (error) {
    if (!signal.aborted && error.name !== "AbortError" && error.status !== 401) replace(root, faultBox(error));
  }
}

function showFrame(route) {
  const top = document.getElementById("top");
  top.hidden = !session;
  if (!session) return;
  const shown = route.name === "task" ? "tasks" : route.name;
  const links = NAVIGATION.filter(([name]) => name !== "launch" || session.may_act).map(([name, word]) =>
    h("a", { href: `#/${name}`, "aria-current": name === shown ? "page" : null }, word),
  );
  links.push(h("a", { href: "api/docs", target: "_blank", rel: "noopener" }, "API"));
  if (session.flower_url) links.push(h("a", { href: session.flower_url, target: "_blank", rel: "noopener" }, "Flower"));
  replace(document.getElementById("nav"), links);
  replace(
    document.getElementById("account"),
    themeButton(),
    h("span", { class: "user", title: session.role }, session.user),
    h("button", { type: "button", class: "quiet", onclick: leave }, "Log out"),
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
  return h("button", { type: "button", id: "theme", class: "quiet", onclick: change, title: `Colours: ${theme}` }, `Colours: ${theme}`);
}

function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("flansible-theme", theme);
  } catch {
    // Without storage it holds until the page is left.
  }
}

function storedTheme() {
  try {
    return localStorage.getItem("flansible-theme") ?? "system";
  } catch {
    return "system";
  }
}

async function leave() {
  try {
    await logout();
  } catch (error) {
    notice(error.message);
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
  window.addEventListener("hashchange", showView);
  window.addEventListener("flansible-logged-out", showView);
  // Beside the question who is logged in: the view is wanted in any case. What fails here is said when it is shown.
  const { name } = readRoute();
  VIEWS[name].load().catch(() => {});
  loadSheets(name);
  try {
    // The server has said with the page when there is nobody to ask about.
    if (document.documentElement.dataset.session !== "none") await whoami();
  } catch (error) {
    replace(document.getElementById("main"), faultBox(error));
    return;
  }
  await showView();
}

start();
