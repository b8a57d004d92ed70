// The header of the page: the task's state, facts and counts, and the buttons to cancel it or run it again.

import { get, session } from "../../api.js";
import { errorBox, h, replace } from "../../dom.js";
import { commitAddress } from "../../forges.js";
import { duration, listed, moment, plural, runSeconds } from "../../format.js";
import { countsBar, isFinal, isRunning, progressOf, stateBadge, stateRow, VERDICTS, verdictBadge } from "../../states.js";
import { saveTemplate } from "../../save_template.js";
import { confirmAgain, confirmCancel } from "./actions.js";

const TICK_MILLISECONDS = 1000;
const REASONS = {
  no_worker: "no worker is running that may take it",
  workers_busy: "all workers are busy",
  user_limit: "this user has reached the limit of running tasks",
  starting: "a worker is starting it",
};

const MOST_CHARACTERS = 200;
const SHOWN_PROCESSES = 2;
const SHOWN_HOSTS = 5;

export class Header {
  /** failures: its `hosts` are those for "Run again on failed hosts". */
  constructor(run, failures) {
    this.run = run;
    this.failures = failures;
    this.duration = h("span", { class: "task-duration" });
    this.summary = h("h1", {});
    this.facts = h("div", { class: "row task-facts" });
    this.description = h("p", { class: "task-description" });
    this.progress = h("div", { class: "task-progress" });
    this.results = h("div", { class: "task-results" });
    this.errorSlot = h("div", {});
    this.buttons = h("div", { class: "row task-buttons" });
    const verdict = h("div", { class: "task-state" });
    this.stateSlot = verdict;
    const head = h("div", { class: "task-top" }, h("div", { class: "task-title" }, verdict, this.summary), this.buttons);
    this.element = h("header", { class: "panel task-header" }, head, this.facts, this.description, this.progress, this.results, this.errorSlot);
    const timer = setInterval(() => this.#tick(), TICK_MILLISECONDS);
    run.signal.addEventListener("abort", () => {
      clearInterval(timer);
      document.title = "Flansible";
    });
    run.addEventListener("events", () => this.#drawProgress());
    this.draw();
    if (run.task.project) this.#findRepository(run.task);
  }

  draw() {
    const { task } = this.run;
    document.title = `${stateRow(task.state).word} · ${task.summary}`;
    // Replaced only when it changes: screen readers announce it each time.
    const state = `${task.state} ${task.warning ?? ""}`;
    if (this.state !== state) replace(this.stateSlot, h("span", { role: "status" }, stateBadge(task)), this.duration);
    this.state = state;
    replace(this.summary, short(task.summary.replace(`${task.user}: `, "")));
    replace(this.facts, this.#facts(task).map(([name, value]) => h("span", { class: "fact" }, h("span", { class: "hint" }, `${name} `), value)));
    // Of a task that waits the facts say why, unless it was lost before.
    this.description.textContent = task.reason && !task.attempt ? "" : task.description;
    this.description.classList.toggle("tone-warning", Boolean(task.warning));
    this.#drawProgress();
    replace(this.results, this.#counts(task));
    this.drawButtons();
    this.#tick();
  }

  drawButtons() {
    const { task } = this.run;
    const bad = [...this.failures.hosts.keys()];
    const mayAct = isFinal(task) ? task.kind !== "git" || session?.may_use_git : mayCancel(task);
    const isAllowed = session?.may_act && mayAct;
    const wanted = !isAllowed ? "" : isFinal(task) ? `again ${task.kind === "git" ? 0 : bad.length}` : "cancel";
    if (this.buttonsShown === wanted) return; // the user may be about to press it
    this.buttonsShown = wanted;
    if (!wanted) return replace(this.buttons);
    if (wanted === "cancel") return replace(this.buttons, this.#button("Cancel", () => confirmCancel(this.run, this.element), "danger"));
    const again = this.#button("Run again", () => confirmAgain(this.run, this.element));
    if (session.launches_only) return replace(this.buttons, task.template ? h("a", { href: `#/templates?${new URLSearchParams({ name: task.template })}` }, "Run this template again") : null);
    const save = this.#button("Save as template", () => this.#save(), "quiet");
    const onFailed = () => confirmAgain(this.run, this.element, [...this.failures.hosts.keys()]);
    const onBad = bad.length && task.kind !== "git" ? this.#button(`Run again on ${plural(bad.length, "failed host")}`, onFailed) : null;
    replace(this.buttons, again, save, onBad);
    return null;
  }

  async #save() {
    const { kind, body } = await this.run.request();
    saveTemplate(this.element, kind, body);
  }

  /** Shows an error; null removes it. */
  showError(fault) {
    replace(this.errorSlot, fault ? errorBox(fault) : null);
  }

  #facts(task) {
    const facts = [["by", h("bdi", {}, task.user)]];
    if (task.template) facts.push(["template", h("bdi", {}, task.template)]);
    if (task.run_as && task.run_as !== task.user) facts.push(["with the rights of", h("bdi", {}, task.run_as)]);
    if (task.trigger !== "api") facts.push(["started by", task.retry_of ? h("a", { href: `#/tasks/${task.retry_of}` }, "a retry") : `a ${task.trigger}`]);
    if (task.hosts) facts.push(["on", short(task.hosts)]);
    if (task.inventory) facts.push(["inventory", short(task.inventory)]);
    if (task.commit) facts.push(["project", this.#commit(task)]);
    facts.push(["submitted", moment(task.submitted_at)]);
    if (task.started_at) facts.push(["started", moment(task.started_at)]);
    if (task.finished_at) facts.push(["ended", moment(task.finished_at)]);
    if (stateRow(task.state).phase === "waiting") facts.push(...this.#queue(task));
    if (task.attempt) facts.push(["attempt", task.attempt]);
    if (task.returncode !== null) facts.push(["exit code", task.returncode]);
    if (task.ended?.length) facts.push(["ended early:", endedProcesses(task.ended)]);
    if (isFinal(task)) facts.push(["", h("a", { href: `#/compare?task=${task.task_id}` }, "Compare with another run")]);
    return facts;
  }

  #commit({ project, ref, commit }) {
    const place = h("code", {}, commit.slice(0, 12));
    const address = commitAddress(this.repository, commit);
    return h("span", {}, h("bdi", {}, project), " at ", h("bdi", {}, ref ?? "its default branch"), ", commit ", address ? h("a", { href: address, rel: "noreferrer" }, place) : place);
  }

  /** Finds out where the project's commits are shown; without the right to read it, or at another forge, nowhere. */
  async #findRepository({ project }) {
    try {
      this.repository = (await get(`api/projects/${encodeURIComponent(project)}`, {}, this.run.signal)).url;
    } catch {
      return; // deleted since, or not ours to read
    }
    if (!this.run.signal.aborted) this.draw();
  }

  #queue({ queue_position: position, reason, waiting_host: host, expected_start: expected }) {
    const facts = [];
    if (position) facts.push(["in the queue", position === 1 ? "next" : `number ${position}`]);
    if (reason) facts.push(["waits because", this.#why(reason, host)]);
    if (expected) facts.push(["expected to start", moment(expected)]);
    return facts;
  }

  // The service names the other task only to users who may see it.
  #why(reason, host) {
    const [why, id] = reason.split(": ");
    if (id === undefined) return REASONS[reason] ?? reason;
    const holder = /^[0-9a-f-]{36}$/.test(id) ? h("a", { href: `#/tasks/${id}` }, `task ${id.slice(0, 8)}`) : "a task of another user";
    if (why === "locked_by") return h("span", {}, "its lock is held by ", holder);
    return h("span", {}, host ? h("bdi", {}, host) : "a host of its inventory", " is also of ", holder, ", which comes first");
  }

  #drawProgress() {
    const { task, events } = this.run;
    const progress = progressOf(task, events.columns.at(-1)?.task);
    if (!progress) return replace(this.progress);
    const waiting = events.waitingHosts().map((host) => host.name);
    return replace(
      this.progress,
      progress.share === null ? null : countsBar(task.counts, progress.share),
      h("p", {}, short(progress.text)),
      waiting.length ? h("p", { class: "hint" }, `Waiting for ${plural(waiting.length, "host")}: `, h("bdi", {}, listed(waiting, SHOWN_HOSTS))) : null,
    );
  }

  #counts({ counts, host_count: hosts }) {
    const given = Object.keys(VERDICTS).map((verdict) => [verdict, counts?.[verdict] ?? 0]).filter(([, count]) => count > 0);
    if (!given.length) return null;
    const words = given.map(([verdict, count]) => verdictBadge(verdict, `${count.toLocaleString()} ${verdict}`));
    // While it runs, the bar is the one of its progress.
    const bar = isRunning(this.run.task) ? null : countsBar(counts);
    return [bar, h("div", { class: "row counts" }, hosts ? h("span", { class: "hint" }, `${plural(hosts, "host")}:`) : null, words)];
  }

  #button(word, work, classes = "") {
    // Not disabled meanwhile: a dialog gives the focus back to it.
    const pressed = async () => {
      if (this.isBusy) return;
      this.isBusy = true;
      try {
        await work();
      } catch (error) {
        this.showError(error);
      }
      this.isBusy = false;
    };
    return h("button", { type: "button", class: classes, onclick: pressed }, word);
  }

  #tick() {
    const seconds = runSeconds(this.run.task);
    const isRunning = !isFinal(this.run.task);
    this.duration.textContent = seconds === null ? "" : duration(isRunning && seconds >= 1 ? Math.floor(seconds) : seconds);
  }
}

// A fleet of hosts has as many processes.
function endedProcesses(names) {
  if (names.length <= SHOWN_PROCESSES) return h("bdi", {}, names.join(", "));
  return h("details", { class: "ended" }, h("summary", {}, plural(names.length, "process", "processes")), h("bdi", {}, names.join(", ")));
}

// A pattern may name thousands of hosts.
function short(text) {
  const isLong = text.length > MOST_CHARACTERS;
  return h("bdi", { title: isLong ? text.slice(0, 10 * MOST_CHARACTERS) : null }, isLong ? `${text.slice(0, MOST_CHARACTERS)}…` : text);
}

/** Whether the session may cancel the task, as far as it knows: which of a team's it may, the service decides. */
function mayCancel(task) {
  return task.user === session?.user || session?.cancels !== "own";
}
