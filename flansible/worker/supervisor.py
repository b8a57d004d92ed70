"""Supervises one run from start to end: starts it in a fork server, reads its output and events, ends it in time.

Runs in a thread of the Celery worker, one per task (celery_task calls `carry_out`). In order, for each step:

1. `_run_step`    makes the channel and two pipes; sandbox.py says what a confined user's run sees;
                  forkserver_pool forks the run and its keeper with the far ends of the three
2. `_send_request` sends the `run` frame (wire.py)
3. `_watch`       polls until the keeper reports the end: output goes through colour_parser and masking to the
                  recorder, frames through frame_validation, and a run that must end is ordered to
4. `outcome_of`   (outcome.py) maps what was observed to a final state; a step that does not succeed is the last

What the supervisor knows of Ansible comes as bytes on two pipes and frames on a channel.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import socket
import time
from dataclasses import replace
from typing import Any

from flansible import wire
from flansible.errors import RunnerError, StartFailure, WireError
from flansible.models import AuthorizedRun, Secrets, State, Step
from flansible.worker import frame_validation
from flansible.worker.ansible_config import notes_for
from flansible.worker.cancel_watcher import Cancellation
from flansible.worker.colour_parser import ColourSplitter, choose_mark
from flansible.worker.confinement_hints import ConfinementHints
from flansible.worker.fork_server import ForkServer
from flansible.worker.forkserver_pool import RUN_START_SECONDS, ForkServerPool
from flansible.worker.keeper_handle import KeeperHandle
from flansible.worker.key_agent import KeyAgent, agent_for
from flansible.worker.lease_renewal import Lease, now
from flansible.worker.masking import Masker
from flansible.worker.outcome import WITHOUT_END, Observed, Outcome, exit_description, outcome_of
from flansible.worker.recorder import Recorder
from flansible.worker.sandbox import Sandboxes
from flansible.worker.shutdown import Shutdown
from flansible.worker.step_descriptors import StepDescriptors
from flansible.worker.step_poll import StepPoll
from flansible.worker.step_state import StepState

log = logging.getLogger(__name__)

NO_RIGHTS = "an older version accepted this task and recorded no rights with it; submit it again"
UNCONFINED = "it uses stored secrets, and runs of its user are not confined on this worker (see flansible doctor)"
_READ_BYTES = 256 * 1024
_SHUTDOWN_POLL_SECONDS = 0.25  # how often the clock is read while the worker is being stopped
_SHUTDOWN_GRACE_SECONDS = 3.0  # at most, when the worker is being stopped: `flansible up` promises to be gone in 10 s
_KEEPER_SECONDS = 12.0  # beyond the grace: a keeper kills for up to ten seconds; after this it loses its channel
_SHUTDOWN_KEEPER_SECONDS = 1.0  # when the worker is being stopped: it must end the sandbox before it is killed itself
_LEASE_KEEPER_SECONDS = 1.0  # when the lease ends: after this the worker itself kills the run
_LONGEST_POLL_SECONDS = 3600.0  # poll(2) takes milliseconds in a C int, which is 24 days
_LEASE_FRAME_SECONDS = 2.0  # how often the keeper learns that its lease was renewed


class Supervisor:
    """Carries out one authorized run, step by step; stops at the first step that does not succeed."""

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
        lease: Lease | None = None,
    ) -> None:
        """ssh_masters: the directory of this user's ssh masters, when the fast ssh profile is in use.

        sandboxes: required for the runs of confined users; without it they are refused. lease: of the task's claim.
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
        self._lease = lease
        # Of a project's run (project_tasks.py): what its first step is to do, the locks that the others hold, and the
        # tree that they may not write in.
        self.project_order: dict[str, Any] | None = None
        self.tree_locks: list[str] = []
        self.read_only_tree = ""
        self._ended: Outcome | None = None  # before its first step, see `ended_before`
        self._secrets: Secrets | None = None
        self._masker = Masker(None)

    def carry_out(self, run: AuthorizedRun, secrets: Secrets | None = None) -> Outcome:
        """Runs the steps; returns how the last of them ended. Raises RunnerError when one cannot be started."""
        self._secrets, self._masker = secrets, Masker(secrets)
        outcome = Outcome(State.ERROR, "the run has no steps")
        for step in run.steps:
            if step.data_only and (run.confinement is None or self._sandboxes is None):
                return Outcome(State.ERROR, NO_RIGHTS)
            try:
                outcome = self._run_step(step, run)
            except StartFailure as failure:
                # Ansible refused its configuration: the command line prints the same text and exits with the same code.
                self._recorder.add_output(*self._masker.feed(failure.text.encode(), []))
                self._recorder.add_output(*self._masker.finish())
                outcome = Outcome(State.FAILED, exit_description(step, failure.returncode), failure.returncode)
            if outcome.state is not State.SUCCEEDED:
                break
        return outcome

    def ended_before(self, step: Step) -> Outcome | None:
        """Returns how the run ends if it must not begin this step any more, for a reason in `_watch`; None if it may.

        Of several calls the first that finds a reason counts.
        """
        if self._ended is None:
            seen = Observed()
            if self._recorder.standing != State.RUNNING:
                seen.stop_reason = State.CANCELED
            else:
                self._note_reason(seen)
            self._ended = outcome_of(step, seen, self._timeout) if seen.stop_reason else None
        return self._ended

    def _run_step(self, step: Step, run: AuthorizedRun) -> Outcome:
        with agent_for(step, self._secrets) as agent:
            return self._run_with(agent, step, run)

    def _run_with(self, agent: KeyAgent | None, step: Step, run: AuthorizedRun) -> Outcome:
        if self._lease is not None and self._lease.is_over:
            return Outcome(State.LOST, self._lease.silence)
        # git runs with the service's own keys, on playbooks that are read-only for confined runs: without a sandbox. A
        # project's step makes one of its own for each command.
        is_ansible = step.program not in WITHOUT_END
        confined = run.confinement if is_ansible else None
        rules, sandbox = None, None
        if confined is not None and self._sandboxes is not None:
            rules = self._sandboxes.rules(confined)
            sandbox = self._sandboxes.of(run.principal, confined, self._ssh_masters)
        if confined is not None and sandbox is None and run.credentials:
            raise RunnerError(UNCONFINED)
        ends = StepDescriptors.open()
        try:
            try:
                # Without the directory's ansible.cfg: a broken one may be what this git update is to repair.
                directory, environment = (step.cwd, step.environment) if is_ansible else ("/", {})
                self._recorder.add_notes(notes_for(step, sandbox))
                server = self._fork_servers.launch(
                    directory, environment, ends.theirs, ends.output_end, ends.events_end, sandbox, is_ansible
                )
            finally:
                ends.close_theirs()
            mark = choose_mark()
            colours = ColourSplitter(mark, self._recorder.offset)
            hints = ConfinementHints(self.read_only_tree) if sandbox or self.read_only_tree else None
            is_listing = step.listing is not None or step.program == "project"
            seen = StepState(ends=ends, is_listing=is_listing, colours=colours, hints=hints)
            seen.agent = agent
            seen.start_by = time.monotonic() + RUN_START_SECONDS
            seen.awaits_key = is_ansible and self._secrets is not None and self._secrets.has_encrypted_key
            try:
                self._send_request(step, mark, rules, seen)
                self._watch(server, seen)
            finally:
                if seen.exited is None and not seen.failure:
                    # Processes in the same sandbox can stop or kill the keeper: have the kernel end all of them.
                    server.kill_sandbox()
                    seen.killed = seen.keeper.kill() if seen.keeper else ()
                if seen.keeper:
                    seen.keeper.close()
            outcome = outcome_of(step, seen, self._timeout)
            if seen.hints and outcome.state is State.FAILED:
                project = run.project.name if run.project else ""
                if hint := seen.hints.sentence(run.principal, project, is_confined=sandbox is not None):
                    outcome = replace(outcome, description=f"{outcome.description}. {hint}")
            return replace(outcome, ended=frame_validation.ended(seen.exited) or seen.killed)
        finally:
            ends.close_ours()

    def _send_request(self, step: Step, colour_mark: str, rules: dict[str, Any] | None, seen: StepState) -> None:
        request = {
            "type": "run",
            "grace_seconds": self._grace_seconds,
            "colour_mark": colour_mark,
            "ssh_masters": self._ssh_masters,
            "rules": rules,
            "secrets": self._secrets_for(step),
            "agent": seen.agent.public_key if seen.agent else None,
            "project": self.project_order if step.program == "project" else None,
            "tree_locks": self.tree_locks if step.program not in WITHOUT_END else [],
            "stop_at": self._lease.stop_at if self._lease else None,
            "kill_at": self._lease.kill_at if self._lease else None,
            **step.model_dump(mode="json"),
        }
        seen.ends.channel.setblocking(False)
        seen.unsent = wire.encode(request)
        self._send_unsent(seen)

    def _secrets_for(self, step: Step) -> dict[str, Any] | None:
        """Returns what a step gets of the secrets: a project's credential is for git alone, and alone for it."""
        if self._secrets is None or step.program == "git":
            return None
        if step.program == "project":
            return self._secrets.model_dump(include={"git_credential"})
        return self._secrets.for_run

    def _send_unsent(self, seen: StepState) -> None:
        """Sends as much of the pending bytes as the channel takes, without blocking."""
        try:
            if seen.unsent:
                seen.unsent = seen.unsent[seen.ends.channel.send(seen.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            # The other end is closed. What it sent before that, such as how the run ended, is still to be read.
            seen.unsent = b""

    def _send_lease(self, seen: StepState) -> None:
        """Sends the keeper its new deadline, now and then; never behind bytes that wait, where it would grow old."""
        if self._lease is None or seen.unsent or time.monotonic() < seen.lease_frame_at:
            return
        seen.lease_frame_at = time.monotonic() + _LEASE_FRAME_SECONDS
        if self._lease.stop_at > seen.sent_stop_at:
            seen.sent_stop_at = self._lease.stop_at
            deadline = {"type": "lease", "stop_at": self._lease.stop_at, "kill_at": self._lease.kill_at}
            seen.unsent = wire.encode(deadline)
            self._send_unsent(seen)

    def _watch(self, server: ForkServer, seen: StepState) -> None:
        """Watches the step until its keeper has reported the end or is gone, in one poll loop.

            running ──a reason to stop──▶ ordered to end ──give_up_at──▶ killed from outside
               └───── `exited` frame, or the channel ends ─────┴──▶ the pipes are drained, the step is over

        | what happens                                     | stop_reason | then                                    |
        |--------------------------------------------------|-------------|-----------------------------------------|
        | the run exits or is killed                       | none        | the keeper sends `exited`               |
        | the run cannot be started: `failed` frame        | none        | as after `exited`                       |
        | the keeper dies, or sends what is no frame       | none        | the channel counts as ended             |
        | a user cancels                                   | canceled    | `stop` frame: TERM, grace_seconds, KILL |
        | the deadline passes                              | timed_out   | the same                                |
        | the worker stops and drain_seconds are over      | lost        | the same with a shorter grace           |
        | the lease ends: no renewal was granted in time   | lost        | the same, until kill_at at the latest   |
        | the record is no longer ours (recorder.standing) | canceled    | the same without a grace                |
        | ordered to end, and no `exited` by give_up_at    | stays       | the keeper and its tree are killed      |
        | no `started` by start_by                         | none        | the fork server is killed: RunnerError  |

        The first reason counts. A run that finishes by itself after the order keeps its own result (`outcome_of`). A
        full recorder pauses the reading: the run then blocks on its pipes until the store or the disk has taken more.
        """
        signals = {self._shutdown.descriptor}
        if self._cancellation is not None:
            signals.add(self._cancellation.descriptor)
        channel = seen.ends.channel
        poll = StepPoll(channel, self._recorder.descriptor, signals)
        while not seen.channel_ended and seen.exited is None and not seen.failure:
            ready = poll.wait(self._wanted_pipes(seen), bool(seen.unsent), self._poll_milliseconds(seen))
            self._read_pipes(ready, seen)
            if channel.fileno() in ready:
                self._send_unsent(seen)
                self._read_channel(server, seen)
            if self._recorder.descriptor in ready:
                os.eventfd_read(self._recorder.descriptor)
            self._refuse_late_start(server, seen)
            self._stop_if_due(seen)
            self._send_lease(seen)
        if seen.stop_reason is None and self._lease is not None and self._lease.is_over:
            seen.stop_reason, seen.lost_because = State.LOST, self._lease.silence  # its keeper was faster than we
        self._drain(seen)

    def _wanted_pipes(self, seen: StepState) -> set[int]:
        """Returns the pipes that are to be read now."""
        if self._recorder.full:
            return set()
        # What an encrypted key must hide comes before all output.
        return seen.open_pipes & {seen.ends.events} if seen.awaits_key else seen.open_pipes

    def _read_pipes(self, ready: set[int], seen: StepState) -> None:
        """Reads once from each pipe that is ready."""
        for descriptor in (seen.ends.output, seen.ends.events):
            if descriptor in ready and not self._read_pipe(descriptor, seen):
                seen.open_pipes.discard(descriptor)
                seen.awaits_key = False

    def _refuse_late_start(self, server: ForkServer, seen: StepState) -> None:
        """Raises RunnerError when the fork server has not started the run in time, and ends that fork server."""
        if time.monotonic() >= seen.start_by:
            self._fork_servers.discard(server)
            raise RunnerError(f"the fork server did not start the run within {RUN_START_SECONDS:g} s")

    def _poll_milliseconds(self, seen: StepState) -> float:
        """Returns the time until the next deadline, which no descriptor announces."""
        moments: list[float | None] = [_LONGEST_POLL_SECONDS, max(0.0, seen.start_by - time.monotonic())]
        if seen.stop_reason is None:
            moments.append(max(0.0, self._deadline - time.monotonic()))
            left = self._shutdown.seconds_left()
            # A second signal only shortens the time left and does not wake us again: read the clock now and then.
            moments.append(None if left is None else min(left, _SHUTDOWN_POLL_SECONDS))
        else:
            moments.append(max(0.0, seen.give_up_at - time.monotonic()))
        if self._lease is not None:
            moments.append(max(0.0, seen.lease_frame_at - time.monotonic()))
        return min(moment for moment in moments if moment is not None) * 1000 + 0.5

    def _stop_if_due(self, seen: StepState) -> None:
        """Orders the run to end when one of the reasons in `_watch` applies; later gives up a keeper that is late."""
        if self._recorder.standing != State.RUNNING and not seen.is_refused:
            seen.is_refused, seen.stop_reason = True, seen.stop_reason or State.CANCELED
            self._order_stop(0.0, _LEASE_KEEPER_SECONDS, seen)
        if seen.stop_reason is not None:
            lease_is_over = self._lease is not None and now() >= self._lease.kill_at + _LEASE_KEEPER_SECONDS
            seen.channel_ended |= lease_is_over or time.monotonic() >= seen.give_up_at
            return
        if (seconds := self._note_reason(seen)) is not None:
            self._order_stop(*seconds, seen)

    def _note_reason(self, seen: Observed) -> tuple[float, float] | None:
        """Notes why the run must end, if it must; returns the seconds that it gets then, and its keeper beyond them."""
        if self._cancellation is not None and self._cancellation.by:
            seen.stop_reason, seen.canceled_by = State.CANCELED, self._cancellation.by
            return self._grace_seconds, _KEEPER_SECONDS
        if time.monotonic() >= self._deadline:
            seen.stop_reason = State.TIMED_OUT
            return self._grace_seconds, _KEEPER_SECONDS
        if self._shutdown.seconds_left() == 0.0:
            seen.stop_reason = State.LOST
            return min(self._grace_seconds, _SHUTDOWN_GRACE_SECONDS), _SHUTDOWN_KEEPER_SECONDS
        if self._lease is not None and self._lease.is_over:
            seen.stop_reason, seen.lost_because = State.LOST, self._lease.silence
            return min(self._grace_seconds, max(0.0, self._lease.kill_at - now())), _LEASE_KEEPER_SECONDS
        return None

    def _order_stop(self, grace_seconds: float, keeper_seconds: float, seen: StepState) -> None:
        seen.give_up_at = min(seen.give_up_at, time.monotonic() + grace_seconds + keeper_seconds)
        seen.unsent += wire.encode({"type": "stop", "grace_seconds": grace_seconds})
        self._send_unsent(seen)

    def _read_pipe(self, descriptor: int, seen: StepState) -> bool:
        """Reads once from a pipe; False at its end."""
        if descriptor == seen.ends.output:
            return self._read_output(seen) != 0
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        # The marks of these events are in the pipe by now; more must not be read here, where nobody asks if it is full.
        seen.ahead_bytes = fcntl.fcntl(seen.ends.output, fcntl.F_GETPIPE_SZ)
        # After a broken frame the rest cannot be parsed; it is still read, or the run would block on a full pipe.
        try:
            for frame in seen.event_frames.feed(data) if seen.fault is None else ():
                self._record(frame, seen)
        except (WireError, TypeError, ValueError, RecursionError) as error:
            seen.fault = f"the run's events cannot be read: {error}"
        return True

    def _record(self, frame: wire.Frame, seen: StepState) -> None:
        kind = frame.get("type")
        if kind == "end":
            if seen.end is not None:
                return  # once, as for `hide`
            seen.end = end = frame_validation.end(frame)
            event: dict[str, Any] = {
                "event": "stats",
                "stats": end["stats"],
                "custom_stats": end["custom_stats"],
                "time": end.get("time", time.time()),
                "mark": end["mark"],
            }
        elif kind == "hide":
            # Once: each takes time and memory of the worker, and a user's code could send any number.
            if seen.awaits_key:
                seen.awaits_key = False
                self._masker.hide_key(frame_validation.hide(frame))
            return
        elif kind == "event":
            event = frame_validation.event(frame)
        elif kind == "plan" and seen.is_listing:
            event = frame_validation.plan(frame)
        else:
            return
        event["offset"] = self._offset_of_event(event.pop("mark"), seen)
        self._recorder.add_event(self._masker.event(event))

    def _offset_of_event(self, number: int, seen: StepState) -> int:
        """Returns the bytes of output before an event. Its mark was written first: not yet read, it is in the pipe."""
        while (offset := seen.colours.offset_of_event(number)) is None:
            count = self._read_output(seen) if number and seen.ahead_bytes > 0 else None
            if not count:
                return seen.colours.offset  # no mark: scripts of tests, or a run that lies about itself
            seen.ahead_bytes -= count
        return offset

    def _read_output(self, seen: StepState) -> int | None:
        """Reads once from the output pipe. Returns the number of bytes, 0 at its end, None when it is empty."""
        try:
            data = os.read(seen.ends.output, _READ_BYTES)
        except BlockingIOError:
            return None
        text, colours = seen.colours.feed(data)
        if seen.hints:
            seen.hints.feed(text)
        self._recorder.add_output(*self._masker.feed(text, colours))
        return len(data)

    def _read_channel(self, server: ForkServer, seen: StepState) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(seen.ends.channel, _READ_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            for descriptor in descriptors:
                # A user's code in the sandbox may send others, at any time.
                seen.agent.serve(descriptor) if seen.agent else os.close(descriptor)
            for frame in seen.channel_frames.feed(data):
                if frame.get("type") == "exited":
                    seen.exited = frame_validation.exited(frame)
                elif frame.get("type") == "failed":
                    seen.failure = frame_validation.failed(frame)
                elif frame.get("type") == "started" and seen.start_by < math.inf:
                    seen.start_by = math.inf
                    seen.keeper = KeeperHandle.of(frame.get("keeper"), server)
        except BlockingIOError:
            return
        except (OSError, WireError):
            data = b""
        if not data:
            seen.channel_ended = True

    def _drain(self, seen: StepState) -> None:
        """Reads what the run wrote before it ended: one read takes all that a pipe can hold.

        Not until the pipes' end: a daemon that the run started may hold them open and continue to write.
        """
        for descriptor in (seen.ends.output, seen.ends.events):
            if descriptor in seen.open_pipes:
                self._read_pipe(descriptor, seen)
        self._recorder.add_output(*self._masker.feed(*seen.colours.finish()))
        self._recorder.add_output(*self._masker.finish())
