"""One run from start to end: starts it in a fork server, reads its output and events, ends it in time.

Runs in a thread of the Celery worker, one per task. All it knows of Ansible comes as bytes on two pipes and frames on
a channel; `verdict` is the table that turns those into a final state.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import time
from dataclasses import dataclass, field, replace
from typing import Any

from flansible import wire
from flansible.errors import StartFailure, WireError
from flansible.models import AuthorizedRun, Secrets, State, Step
from flansible.worker import frame_validation
from flansible.worker.cancel_watcher import Cancellation
from flansible.worker.colour_parser import ColourSplitter, choose_mark
from flansible.worker.forkserver_pool import ForkServerPool
from flansible.worker.masking import Masker
from flansible.worker.recorder import Recorder
from flansible.worker.sandbox import Sandboxes
from flansible.worker.shutdown import Shutdown

log = logging.getLogger(__name__)

_READ_BYTES = 256 * 1024
_HURRY_SECONDS = 0.25
_STOP_GRACE_SECONDS = 3.0  # at most, when the worker is being stopped: `flansible up` promises to be gone in 10 s
_KEEPER_SECONDS = 12.0  # after the grace a keeper kills for up to ten seconds; one that takes longer is given up
_HURRIED_KEEPER_SECONDS = 1.0  # when the worker is being stopped: it must end the sandbox before it is killed itself
_LONGEST_POLL_SECONDS = 3600.0  # poll(2) takes milliseconds in a C int, which is 24 days

# Ansible's exit codes (ansible.errors.ExitCode), in words.
_ANSIBLE_SAYS = {
    1: "an error",
    2: "one or more hosts failed",
    3: "one or more hosts failed",
    4: "hosts were unreachable, or the playbook could not be parsed",
    5: "bad options or configuration",
    6: "hosts failed and hosts were unreachable",
    99: "interrupted",
    250: "an unexpected exception",
}


@dataclass(frozen=True)
class Outcome:
    """How a run ended, as `store.settle` takes it."""

    state: State
    description: str
    returncode: int | None = None
    ended: tuple[str, ...] = ()  # processes that were ended before their time, each as "name (pid)"


@dataclass
class _Observed:
    """What was seen of one step."""

    stop_reason: State | None = None
    give_up_at: float = math.inf
    canceled_by: str = "another process"
    exited: wire.Frame | None = None
    channel_ended: bool = False
    end: wire.Frame | None = None
    fault: str | None = None
    unsent: bytes = b""  # what the channel did not take yet: a user's code can stop whoever is to read it
    base_offset: int = 0
    is_listing: bool = False  # of no other run are plans taken, whatever a user's code writes into the pipe
    colours: ColourSplitter = field(default_factory=lambda: ColourSplitter(choose_mark(), 0))
    reader: wire.FrameReader = field(default_factory=wire.FrameReader)


def verdict(step: Step, seen: _Observed, timeout: str) -> Outcome:
    """The table: what was seen to what it means. A run that executed nothing because something broke is no success."""
    code = seen.exited["returncode"] if seen.exited else None
    number = seen.exited["signal"] if seen.exited else None
    finished = code is not None and (seen.end is not None or step.program == "git")
    if seen.stop_reason and not finished:
        return Outcome(seen.stop_reason, _stopped(seen, timeout), code)
    if seen.exited is None:
        return Outcome(State.LOST, "the process that kept the run died; what it had started was ended with it")
    if number is not None:
        return Outcome(State.LOST, f"the run was killed by signal {number} ({signal.Signals(number).name})")
    if seen.fault:
        return Outcome(State.ERROR, seen.fault, code)
    if seen.end is not None and seen.end.get("broken"):
        return Outcome(State.ERROR, str(seen.end["broken"]), code)
    if code != 0:
        return Outcome(State.FAILED, _said_no(step, code), code)
    if not finished:
        return Outcome(State.ERROR, "the run ended with exit code 0 but without saying what it did", code)
    return Outcome(State.SUCCEEDED, f"{step.program} ended with exit code 0", 0)


def _stopped(seen: _Observed, timeout: str) -> str:
    count = seen.exited.get("stopped_count", 0) if seen.exited else 0
    ended = f"{count} processes were ended"
    if seen.stop_reason is State.TIMED_OUT:
        return f"ended after {timeout}; {ended}"
    if seen.stop_reason is State.LOST:
        return f"the worker was stopped while it ran; {ended}"
    return f"canceled by {seen.canceled_by}; {ended}"


def _said_no(step: Step, code: int | None) -> str:
    meaning = _ANSIBLE_SAYS.get(code or 0) if step.program != "git" else None
    return f"{step.program} ended with exit code {code}" + (f": {meaning}" if meaning else "")


class Supervisor:
    """Carries out one authorized run, step by step; stops at the first step that is not a success."""

    def __init__(
        self,
        fork_servers: ForkServerPool,
        recorder: Recorder,
        shutdown: Shutdown,
        timeout_seconds: float,
        grace_seconds: float,
        cancellation: Cancellation | None = None,
        timeout_name: str = "CELERY_TASK_TIMEOUT",
        ssh_masters: str | None = None,
        sandboxes: Sandboxes | None = None,
    ) -> None:
        """ssh_masters: the directory of this user's masters, when the fast ssh profile is in use.

        sandboxes: what the runs of users other than admin are confined by; without it none can be carried out.
        """
        self._fork_servers = fork_servers
        self._recorder = recorder
        self._shutdown = shutdown
        self._timeout = f"{timeout_seconds:g} seconds ({timeout_name})"
        self._deadline = time.monotonic() + timeout_seconds
        self._grace_seconds = grace_seconds
        self._cancellation = cancellation
        self._ssh_masters = ssh_masters
        self._sandboxes = sandboxes
        self._secrets: Secrets | None = None
        self._masker = Masker(None)

    def carry_out(self, run: AuthorizedRun, secrets: Secrets | None = None) -> Outcome:
        """Raises RunnerError when a step cannot be started at all."""
        self._secrets, self._masker = secrets, Masker(secrets)
        outcome = Outcome(State.ERROR, "the run has no steps")
        for step in run.steps:
            if step.data_only and (run.confinement is None or self._sandboxes is None):
                return Outcome(State.ERROR, "it says nothing about rights: an older version took it; submit it again")
            try:
                outcome = self._step(step, run)
            except StartFailure as failure:
                # Ansible refused its configuration: the command line would have printed this and ended with this.
                self._recorder.add_output(*self._masker.feed(failure.text.encode(), []))
                self._recorder.add_output(*self._masker.finish())
                outcome = Outcome(State.FAILED, _said_no(step, failure.returncode), failure.returncode)
            if outcome.state is not State.SUCCEEDED:
                break
        return outcome

    def _step(self, step: Step, run: AuthorizedRun) -> Outcome:
        # git works for the service: with its keys, on the playbooks that are read-only to everybody else.
        confined = run.confinement if step.program != "git" else None
        rules, sandbox = None, None
        if confined is not None and self._sandboxes is not None:
            rules = self._sandboxes.rules(confined)
            sandbox = self._sandboxes.of(run.user, confined, self._ssh_masters)
        channel, theirs = socket.socketpair()
        output, output_end = os.pipe2(os.O_CLOEXEC)
        events, events_end = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                for descriptor in (output, events):
                    # Our ends only: Ansible refuses a standard output that does not block.
                    os.set_blocking(descriptor, False)
                # git does not need the directory's ansible.cfg: a broken one may be what it is to mend.
                place, environment = ("/", {}) if step.program == "git" else (step.cwd, step.environment)
                server = self._fork_servers.launch(place, environment, theirs, output_end, events_end, sandbox)
            finally:
                theirs.close()
                os.close(output_end)
                os.close(events_end)
            mark, offset = choose_mark(), self._recorder.offset
            seen = _Observed(
                base_offset=offset, is_listing=step.listing is not None, colours=ColourSplitter(mark, offset)
            )
            try:
                self._begin(channel, step, mark, rules, seen)
                self._watch(channel, output, events, seen)
            finally:
                if seen.exited is None:
                    # Whoever shares a sandbox with its keeper can stop or kill it; the kernel ends what is in there.
                    server.kill_sandbox()
            return replace(verdict(step, seen, self._timeout), ended=frame_validation.ended(seen.exited))
        finally:
            channel.close()
            os.close(output)
            os.close(events)

    def _begin(
        self, channel: socket.socket, step: Step, colour_mark: str, rules: dict[str, Any] | None, seen: _Observed
    ) -> None:
        request = {
            "type": "run",
            "grace_seconds": self._grace_seconds,
            "colour_mark": colour_mark,
            "ssh_masters": self._ssh_masters,
            "rules": rules,
            "secrets": self._secrets.model_dump() if self._secrets and step.program != "git" else None,
            **step.model_dump(mode="json"),
        }
        channel.setblocking(False)
        seen.unsent = wire.encode(request)
        self._send(channel, seen)

    def _send(self, channel: socket.socket, seen: _Observed) -> None:
        """As much of what is to be said as is taken, without waiting."""
        try:
            if seen.unsent:
                seen.unsent = seen.unsent[channel.send(seen.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            seen.channel_ended = True

    def _watch(self, channel: socket.socket, output: int, events: int, seen: _Observed) -> None:
        """Until the keeper has said how the run ended, or is gone."""
        reader = wire.FrameReader()
        poll = select.poll()
        signals = {self._shutdown.descriptor}
        if self._cancellation is not None:
            signals.add(self._cancellation.descriptor)
        for descriptor in (self._recorder.descriptor, *signals):
            poll.register(descriptor, select.POLLIN)
        open_pipes = {output, events}
        reading: set[int] = set()
        while not seen.channel_ended and seen.exited is None:
            wanted = set() if self._recorder.full else open_pipes
            for descriptor in reading - wanted:
                poll.unregister(descriptor)
            for descriptor in wanted - reading:
                poll.register(descriptor, select.POLLIN)
            reading = set(wanted)
            poll.register(channel, select.POLLIN | (select.POLLOUT if seen.unsent else 0))
            ready = {descriptor for descriptor, _ in poll.poll(self._poll_milliseconds(seen))}
            for descriptor in (output, events):
                if descriptor in ready and not self._read(descriptor, descriptor == events, seen):
                    open_pipes.discard(descriptor)
            if channel.fileno() in ready:
                self._send(channel, seen)
                self._read_channel(channel, reader, seen)
            if self._recorder.descriptor in ready:
                os.eventfd_read(self._recorder.descriptor)
            for descriptor in signals & ready:
                # It stays readable; having woken us once is enough.
                poll.unregister(descriptor)
                signals.discard(descriptor)
            self._act(channel, seen)
        self._drain(output, events, open_pipes, seen)

    def _poll_milliseconds(self, seen: _Observed) -> float:
        """Until the next thing to do without being woken: a deadline to keep."""
        moments: list[float | None] = [_LONGEST_POLL_SECONDS]
        if seen.stop_reason is None:
            moments.append(max(0.0, self._deadline - time.monotonic()))
            left = self._shutdown.seconds_left()
            # A second order can only hurry, and its descriptor has done its waking: look at the clock now and then.
            moments.append(None if left is None else min(left, _HURRY_SECONDS))
        else:
            moments.append(max(0.0, seen.give_up_at - time.monotonic()))
        return min(moment for moment in moments if moment is not None) * 1000 + 0.5

    def _act(self, channel: socket.socket, seen: _Observed) -> None:
        """End the run when someone wants that, its time is up, the worker must stop, or the record is not ours."""
        if seen.stop_reason is not None:
            # A keeper that does not answer loses its channel, which is the last order to end its run.
            seen.channel_ended |= time.monotonic() >= seen.give_up_at
            return
        if self._cancellation is not None and self._cancellation.by:
            seen.stop_reason, seen.canceled_by = State.CANCELED, self._cancellation.by
        elif time.monotonic() >= self._deadline:
            seen.stop_reason = State.TIMED_OUT
        elif self._shutdown.seconds_left() == 0.0:
            seen.stop_reason = State.LOST
        elif self._recorder.standing != State.RUNNING:
            seen.stop_reason = State.CANCELED
        if seen.stop_reason is not None:
            grace = self._grace_seconds
            if seen.stop_reason is State.LOST:
                grace = min(grace, _STOP_GRACE_SECONDS)
            self._stop(channel, grace, seen)

    def _stop(self, channel: socket.socket, grace_seconds: float, seen: _Observed) -> None:
        patience = _HURRIED_KEEPER_SECONDS if seen.stop_reason is State.LOST else _KEEPER_SECONDS
        seen.give_up_at = time.monotonic() + grace_seconds + patience
        seen.unsent += wire.encode({"type": "stop", "grace_seconds": grace_seconds})
        self._send(channel, seen)

    def _read(self, descriptor: int, is_events: bool, seen: _Observed) -> bool:
        """One read from a pipe that has something; False at its end."""
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        if not is_events:
            self._recorder.add_output(*self._masker.feed(*seen.colours.feed(data)))
            return True
        # After a broken frame nothing can be understood; it is read all the same, or the run would wait for a reader.
        try:
            for frame in seen.reader.feed(data) if seen.fault is None else ():
                self._note(frame, seen)
        except (WireError, TypeError, ValueError, RecursionError) as error:
            seen.fault = f"the run's events cannot be read: {error}"
        return True

    def _note(self, frame: wire.Frame, seen: _Observed) -> None:
        kind = frame.get("type")
        if kind == "end":
            seen.end = end = frame_validation.end(frame)
            event: dict[str, Any] = {
                "event": "stats",
                "stats": end["stats"],
                "custom_stats": end["custom_stats"],
                "time": end.get("time", time.time()),
            }
        elif kind == "event":
            event = frame_validation.event(frame)
        elif kind == "plan" and seen.is_listing:
            event = frame_validation.plan(frame)
        else:
            return
        event["offset"] = seen.base_offset + int(frame.get("offset", 0))
        self._recorder.add_event(self._masker.event(event))

    def _read_channel(self, channel: socket.socket, reader: wire.FrameReader, seen: _Observed) -> None:
        try:
            data = channel.recv(_READ_BYTES)
            for frame in reader.feed(data):
                if frame.get("type") == "exited":
                    seen.exited = frame_validation.exited(frame)
        except BlockingIOError:
            return
        except (OSError, WireError):
            data = b""
        if not data:
            seen.channel_ended = True

    def _drain(self, output: int, events: int, open_pipes: set[int], seen: _Observed) -> None:
        """What the run wrote before it ended is in the pipes now, and one read takes all a pipe can hold.

        No reading to the end: a daemon that the run started may hold the pipe open, and may go on writing.
        """
        for descriptor in (output, events):
            if descriptor in open_pipes:
                self._read(descriptor, descriptor == events, seen)
        self._recorder.add_output(*self._masker.feed(*seen.colours.finish()))
        self._recorder.add_output(*self._masker.finish())
