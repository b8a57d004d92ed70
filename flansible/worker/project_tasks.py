"""Runs of a project: has the commit made ready on this machine, and runs it in that tree.

1. a lease on the tree, so that it stays             flansible.projects.shelf
2. is it there, with its requirements, or written at once from the mirror? Then go on; else a step of its own, which is
   supervised like the run's others: runner/project_step.py fetches, writes the tree and installs requirements, and its
   output is the task's
3. the run's steps, with their folders in the tree
4. a run without a sandbox may have written into the tree: then no other run uses it any more
"""

from __future__ import annotations

import logging
import posixpath
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from flansible.authorization import isolation
from flansible.config import Settings
from flansible.errors import ProjectError, RunnerError
from flansible.models import AuthorizedRun, ProjectRun, Secrets, State, Step
from flansible.projects import order, prepare, requirements
from flansible.projects.order import Order
from flansible.projects.private_copy import private_copy
from flansible.worker import mounts, project_files
from flansible.worker.mounts import Mounts
from flansible.worker.outcome import Outcome
from flansible.worker.project_upkeep import bounds_of
from flansible.worker.recorder import Recorder
from flansible.worker.supervisor import Supervisor

log = logging.getLogger(__name__)

_STEP = Step(program="project", argv=(), cwd="/")
_GIT_SECONDS = 1800.0  # of one command; the task's own limit counts besides
_RESOLVE_SECONDS = 9.0
_WRITE_SECONDS = 2.0
_OFFLINE = ("/usr", "/bin", "/sbin", "/lib", "/etc/alternatives")
_MOST_COPIED_BYTES = 1024**3


def carry_out(
    supervisor: Supervisor,
    recorder: Recorder,
    run: AuthorizedRun,
    project: ProjectRun,
    secrets: Secrets | None,
    settings: Settings,
) -> Outcome:
    """Runs a task of a project; returns how it ended. Raises RunnerError and OSError."""
    began = time.monotonic()
    is_list = run.steps[0].listing == "files"
    if run.kind == "git" and not is_list:
        what: Literal["resolve", "tags"] = "tags" if run.steps[0].listing == "tags" else "resolve"
        supervisor.project_order = order_of(what, project, settings, _RESOLVE_SECONDS)
        return supervisor.carry_out(run, secrets)
    if project.remark:
        recorder.add_notes((project.remark,))
    with ExitStack() as stack:
        used = _Used(order.folder_of(settings.data_dir, project.name), project, stack)
        used.make()
        try:
            is_ready = used.take() or _written(recorder, project, settings) and used.take()
            if not is_ready:
                outcome = _prepare(supervisor, run, project, secrets, settings)
                if outcome.state is not State.SUCCEEDED:
                    return outcome
                is_ready = used.take()
        except ProjectError as error:
            recorder.add_notes((str(error),))
            return Outcome(State.FAILED, str(error))
        if not is_ready:
            return Outcome(State.ERROR, "what was made ready of the project is gone again; submit it again")
        if is_list:
            return _list(recorder, run, used.tree, settings, began)
        supervisor.tree_locks = used.locks
        if project.private_copy:
            try:
                used.copy(run.principal, lambda: supervisor.ended_before(run.steps[0]) is not None)
            except RunnerError:
                if outcome_before := supervisor.ended_before(run.steps[0]):
                    return outcome_before
                raise
        else:
            supervisor.read_only_tree = str(used.tree)
        outcome = supervisor.carry_out(_located(run, used), secrets)
        if run.confinement is None or not isolation.of(settings.isolation).in_force:
            used.look_for_changes(recorder)
        return outcome


def _list(recorder: Recorder, run: AuthorizedRun, tree: Path, settings: Settings, began: float) -> Outcome:
    """Lists a tree's files within the run's time limit, which counts from `began`: nothing else ends this."""
    seconds = run.time_limit or settings.CELERY_TASK_TIMEOUT
    try:
        plan = project_files.of_tree(tree, settings.playbook_filter, run.steps[0].argv, began + seconds)
    except ProjectError as error:
        return Outcome(State.FAILED, str(error))
    except RuntimeError:  # pathlib's, or RecursionError
        return Outcome(State.FAILED, "a link leads to itself, or through too many others")
    recorder.add_event({"event": "plan", "plan": plan, "too_large": False, "time": time.time()})
    return Outcome(State.SUCCEEDED, "the files are listed", 0)


def _written(recorder: Recorder, project: ProjectRun, settings: Settings) -> bool:
    """Whether the tree could be written here and now: a step of its own takes longer than a small tree does."""
    said: list[str] = []
    try:
        prepare.write_tree(order_of("prepare", project, settings, _WRITE_SECONDS), said.append)
    except (ProjectError, OSError) as error:
        log.debug("project %s at %s needs a step: %s", project.name, project.commit, error)
    recorder.add_notes(said)
    return bool(said)


def _prepare(
    supervisor: Supervisor, run: AuthorizedRun, project: ProjectRun, secrets: Secrets | None, settings: Settings
) -> Outcome:
    began = time.monotonic()
    supervisor.project_order = order_of("prepare", project, settings, _GIT_SECONDS)
    outcome = supervisor.carry_out(run.model_copy(update={"steps": (_STEP,)}), secrets)
    log.info("project %s at %s was made ready in %.1f s", project.name, project.commit, time.monotonic() - began)
    return outcome


class _Used:
    """What a run uses of a project on this machine, with leases that end with the stack. folder: the project's."""

    def __init__(self, folder: Path, project: ProjectRun, stack: ExitStack) -> None:
        self._folder = folder
        self._project = project
        self._stack = stack
        self._trees, self._installed = order.trees(folder), order.requirements(folder)
        self._tree_key = order.tree_key(project.commit, project.submodules, project.allowed_signers)
        self.requirements: Path | None = None
        self.locks: list[str] = []

    def make(self) -> None:
        for one in (self._trees, self._installed):
            one.make()
        lease = self._trees.lease(self._tree_key)
        self._stack.callback(lease.close)
        self.tree = lease.path
        self.locks.append(str(lease.run_lock))

    def take(self) -> bool:
        """Whether tree and requirements are there. Raises ProjectError for requirements that cannot be read."""
        if not self._trees.is_there(self._tree_key):
            return False
        found = requirements.of(self.tree, self._project.requirements, self._project.gets_tokens)
        if found is None:
            return True
        if self.requirements is None:
            lease = self._installed.lease(found.key)
            self._stack.callback(lease.close)
            self.requirements = lease.path
            self.locks.append(str(lease.run_lock))
        return self._installed.is_there(found.key)

    def copy(self, principal: str, must_end: Callable[[], bool]) -> None:
        """Has the run work in a copy of the tree that it may write; gone afterwards. Raises RunnerError, also when the
        run has to end meanwhile."""
        if self._trees.size(self._tree_key) > _MOST_COPIED_BYTES:
            raise RunnerError(f"the tree of project {self._project.name} is too large for a private copy (1 GiB)")
        self.tree = self._stack.enter_context(private_copy(self.tree, self._folder, principal, must_end))

    def look_for_changes(self, recorder: Recorder) -> None:
        """Takes a tree that a run has changed out of use."""
        if self._trees.is_changed(self._tree_key):
            self._trees.withdraw(self._tree_key)
            recorder.add_notes(("the run has changed files of the project: its next run gets them as they were",))


def _located(run: AuthorizedRun, used: _Used) -> AuthorizedRun:
    """Returns the run with its folders in the tree, and with the variables by which Ansible finds requirements."""
    steps = []
    for step in run.steps:
        cwd = Path(posixpath.normpath(used.tree / step.cwd))
        environment = dict(step.environment)
        if used.requirements is not None:
            environment |= requirements.environment(used.requirements, cwd, environment)
        steps.append(step.model_copy(update={"cwd": str(cwd), "environment": environment}))
    return run.model_copy(update={"steps": tuple(steps)})


def order_of(
    what: Literal["prepare", "resolve", "tags"], project: ProjectRun, settings: Settings, seconds: float
) -> dict[str, Any]:
    is_confined = isolation.of(settings.isolation).in_force
    return asdict(
        Order(
            what=what,
            folder=str(order.folder_of_all(settings.data_dir)),
            name=project.name,
            url=project.url,
            ref=project.ref,
            commit=project.commit,
            allow_refs=project.allow_refs,
            must_answer=project.must_answer,
            public_only=project.public_only,
            is_admins=project.gets_tokens,
            known_hosts=project.known_hosts,
            allowed_signers=project.allowed_signers,
            submodules=project.submodules,
            depth=project.depth,
            requirements=project.requirements,
            seconds=seconds,
            sandbox=_sandbox_words() if is_confined else (),
            offline_sandbox=_offline_words() if is_confined else (),
            bounds=bounds_of(settings),
        )
    )


@dataclass(frozen=True)
class _Everything:
    """A rule by which nothing is hidden."""

    def is_hidden(self, path: str) -> bool:
        return False

    def is_partly_hidden(self, folder: str) -> bool:
        return False


@cache
def _offline_words() -> tuple[str, ...]:
    """Returns the words before a git that works on the mirror alone: with the system's programs, and without a network
    and /proc. It is made in half the time."""
    words, found = _sandbox_words(), ["--dev-bind", "/dev/null", "/dev/null", "--tmpfs", "/tmp"]
    for at, word in enumerate(words):
        if word in ("--symlink", "--ro-bind") and words[at + 2].startswith(_OFFLINE):
            found += words[at : at + 3]
    return ("bwrap", "--unshare-net", *isolation.NAMESPACES, *found)


@cache
def _sandbox_words() -> tuple[str, ...]:
    """Returns the words before a command of git or Galaxy: a sandbox that has the system and this Python alone."""
    found = Mounts(_Everything(), Path("/nonexistent"))
    found.add_system()
    for path in mounts.programs():
        found.add_tree(path)
    found.mount_trees()
    return ("bwrap", *isolation.NAMESPACES, *found.arguments)
