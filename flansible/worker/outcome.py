"""Maps what the supervisor observed of one step to the final state of the run. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from flansible import wire
from flansible.models import State, Step

# Ansible's exit codes (ansible.errors.ExitCode).
_EXIT_CODES = {
    1: "an error",
    2: "one or more hosts failed",
    3: "one or more hosts failed",
    4: "hosts were unreachable, or the playbook could not be parsed",
    5: "bad options or configuration",
    6: "hosts failed and hosts were unreachable",
    99: "interrupted",
    250: "an unexpected exception",
}


# These send no `end` frame, and their exit codes are not Ansible's.
WITHOUT_END = ("git", "project")


@dataclass(frozen=True)
class Outcome:
    """How a run ended, as `store.settle` takes it."""

    state: State
    description: str
    returncode: int | None = None
    warning: str | None = None  # exit code 0, and nothing was done on any host: what it lacked
    ended: tuple[str, ...] = ()  # processes that were ended by force, each as "name (pid)"


@dataclass(kw_only=True)
class Observed:
    """What was observed of one step."""

    stop_reason: State | None = None  # why the supervisor ordered the run to end
    canceled_by: str = "another process"
    lost_because: str = "the worker was stopped while the task ran"
    failure: str = ""  # why the keeper could not start or watch the run
    killed: tuple[str, ...] = ()  # what was killed from outside, since the keeper did not report
    exited: wire.Frame | None = None  # the keeper's last frame
    end: wire.Frame | None = None  # the run's last frame
    fault: str | None = None  # why its frames cannot be read


def outcome_of(step: Step, seen: Observed, timeout: str) -> Outcome:
    """Maps what was observed to a final state: the first row that applies decides.

    | observed                                               | state                             |
    |--------------------------------------------------------|-----------------------------------|
    | ordered to end, and it did not finish by itself        | the stop reason: canceled, …      |
    | a `failed` frame: no disk, descriptor or process left  | error                             |
    | no `exited` frame: the keeper died                     | lost                              |
    | killed by a signal                                     | lost                              |
    | frames that cannot be read                             | error                             |
    | an `end` frame that says why nothing could be executed | error                             |
    | an exit code other than 0                              | failed                            |
    | exit code 0 without an `end` frame (but WITHOUT_END)   | error                             |
    | exit code 0                                            | succeeded                         |

    Finished means: with an exit code and an `end` frame. A run that executed nothing because something broke is no
    success. timeout: the time limit in words.
    """
    code = seen.exited["returncode"] if seen.exited else None
    number = seen.exited["signal"] if seen.exited else None
    finished = code is not None and (seen.end is not None or step.program in WITHOUT_END)
    if seen.stop_reason and not finished:
        return Outcome(seen.stop_reason, _stop_description(seen, timeout), code)
    if seen.failure:
        return Outcome(State.ERROR, seen.failure)
    if seen.exited is None:
        return Outcome(State.LOST, "the run's keeper process died; the run's processes were ended with it")
    if number is not None:
        return Outcome(State.LOST, f"the run was killed by signal {number} ({signal.Signals(number).name})")
    if seen.fault:
        return Outcome(State.ERROR, seen.fault, code)
    if seen.end is not None and seen.end.get("broken"):
        return Outcome(State.ERROR, str(seen.end["broken"]), code)
    if code != 0:
        reason = seen.end.get("reason") if seen.end else None
        return Outcome(State.FAILED, exit_description(step, code, reason), code)
    if not finished:
        return Outcome(State.ERROR, "the run ended with exit code 0 but did not report what it did", code)
    warning = seen.end.get("warning") if seen.end else None
    description = exit_description(step, 0) + (f": {warning}" if warning else "")
    return Outcome(State.SUCCEEDED, description, 0, warning)


def exit_description(step: Step, code: int | None, reason: str | None = None) -> str:
    """Describes an exit code: "ansible ended with exit code 4: hosts were unreachable, ...". reason: if it is known."""
    if step.program == "project":
        return "the project's commit is ready" if code == 0 else "the project's commit could not be made ready"
    meaning = None if step.program in WITHOUT_END else (reason or _EXIT_CODES.get(code or 0))
    return f"{step.program} ended with exit code {code}" + (f": {meaning}" if meaning else "")


def _stop_description(seen: Observed, timeout: str) -> str:
    count = seen.exited.get("stopped_count", 0) if seen.exited else len(seen.killed)
    ended = f"{count} processes were ended"
    if seen.stop_reason is State.TIMED_OUT:
        return f"ended after {timeout}; {ended}"
    if seen.stop_reason is State.LOST:
        return f"{seen.lost_because}; {ended}"
    return f"canceled by {seen.canceled_by}; {ended}"
