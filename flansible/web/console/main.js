// The frame around the views: shows the view that the address names; navigation, who is logged in, light or dark.

import { logout, session, whoami } from "./api.js";
import { faultBox, h, notice, replace } from "./dom.js";
import { readRoute } from "./router.js";

// name -> module, loaded when it is first shown. A view is `show(root, route)`.
const VIEWS = {
  tasks: () => import("./views/tasks/tasks.js"),
  task: () => import("./views/task/task.js"),
  launch: () => import("./views/launch/launch.js"),
  overview: () => import("./views/overview/overview.js"),
  login: () => import("./views/login/login.js"),
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
    const [view] = await Promise.all([VIEWS[route.name](), loadStyle(route.name)]);
    if (signal.aborted) return;
    useStyle(route.name);
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
    document.getElementById("who"),
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

const loaded = new Map();

/** The view's own sheet, before it is shown. */
function loadStyle(name) {
  if (!loaded.has(name)) {
    const link = h("link", { rel: "stylesheet", href: `console/views/${name}/${name}.css` });
    const ready = new Promise((resolve) => ["load", "error"].forEach((event) => link.addEventListener(event, resolve)));
    document.head.append(link);
    loaded.set(name, { link, ready });
  }
  return loaded.get(name).ready;
}

/** Of the sheets that are there only this view's: two may call different things by one name. */
function useStyle(name) {
  for (const [other, { link }] of loaded) if (link.sheet) link.sheet.disabled = other !== name;
}

async function start() {
  setTheme(storedTheme());
  window.addEventListener("hashchange", showView);
  window.addEventListener("flansible-logged-out", showView);
  // Beside the question who is logged in: the view is wanted in any case. What fails here is said when it is shown.
  const { name } = readRoute();
  VIEWS[name]().catch(() => {});
  loadStyle(name);
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
