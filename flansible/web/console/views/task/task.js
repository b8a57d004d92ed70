// The page of one task: its header and failures, and its output, hosts, timeline and request as tabs.

import { errorBox } from "../../dom.js";
import { setParams } from "../../router.js";
import { ScrollHold } from "../../scroll_hold.js";
import { Failures } from "./failures.js";
import { Header } from "./header.js";
import { HostsTab } from "./host_matrix.js";
import { OutputTab } from "./output.js";
import { RequestTab } from "./request.js";
import { Run } from "./run.js";
import { Since } from "./since.js";
import { Tabs } from "./tabs.js";
import { TimelineTab } from "./timeline.js";

// Parameters of the address that belong to the tabs: a link to another part of the page removes them all.
const TAB_PARAMS = ["line", "at", "host", "seq", "only"];

export async function show(root, { id, params, signal }) {
  const run = new Run(id, signal);
  await run.load();
  const failures = new Failures(run);
  const since = new Since(run);
  const header = new Header(run, failures);
  const views = { output: new OutputTab(run), hosts: new HostsTab(run), timeline: new TimelineTab(run), request: new RequestTab(run) };
  const words = { output: "Output", hosts: "Hosts", timeline: "Timeline", request: "Request" };
  const tabs = new Tabs("About this task", Object.entries(views).map(([name, view]) => [name, words[name], view.element]), (name) => goTo(new URLSearchParams({ tab: name })));
  let hold = null;
  root.append(header.element, since.element, failures.element, tabs.element);

  function goTo(wanted) {
    setParams({ ...Object.fromEntries(TAB_PARAMS.map((name) => [name, null])), ...Object.fromEntries(wanted) });
    showTab(wanted);
  }

  function showTab(wanted) {
    const name = wanted.get("tab") in views ? wanted.get("tab") : "output";
    tabs.show(name);
    views[name].show(wanted).catch((error) => signal.aborted || views[name].element.prepend(errorBox(error)));
  }

  // A link to a line or a cell leads to it; what is above it on the page may arrive later.
  function goToTabs() {
    hold?.end();
    const reveal = () => {
      const { panel } = views.hosts;
      const place = panel.isOutOfSight(tabs.element.getBoundingClientRect().top) ? panel.element : tabs.element;
      place.scrollIntoView({ block: "start" });
    };
    hold = new ScrollHold(document.scrollingElement, reveal, window, signal);
    hold.update();
  }

  root.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-stay]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    goTo(new URLSearchParams(link.getAttribute("href").split("?")[1]));
    goToTabs();
  });
  const observer = new ResizeObserver(() => hold?.update());
  observer.observe(root);
  window.addEventListener("scroll", () => hold?.update(), { signal, passive: true });
  signal.addEventListener("abort", () => observer.disconnect());
  const updateFailures = () => failures.update().then(() => header.drawButtons(), (error) => signal.aborted || header.showError(error));
  run.addEventListener("task", () => {
    header.draw();
    header.showError(null);
    updateFailures();
    since.update();
  });
  run.addEventListener("failure", () => header.showError(run.error));
  showTab(params);
  since.update();
  updateFailures();
  if (TAB_PARAMS.some((place) => params.has(place))) goToTabs();
  run.watch();
}
