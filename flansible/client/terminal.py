"""The client commands at a terminal: live output, Ctrl-C, exit codes, records in readable form.

Standard output gets only the requested data; messages go to standard error. Called by flansible.cli and
flansible.client.drop_in, with the profile they have found.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from types import FrameType, TracebackType
from typing import Any, Self

from flansible.client import Client
from flansible.client.profile import Profile
from flansible.client.replies import Format, Kind, TaskStatusReply
from flansible.client.terminal_filter import filtered
from flansible.errors import ClientError, ServiceRefused, ServiceUnreachable
from flansible.states import COMPLETED_STATES, State

EXIT_CANCELED = 99  # Ansible's own for an interrupted run
EXIT_LEFT = 130  # what a shell reports for a program ended by SIGINT
EXIT_BROKEN = 250  # Ansible's own for an unexpected exception
_CANCEL_TIMEOUT_SECONDS = 10.0
_NO_COLOURS = "\x1b[0m"
_YES = frozenset({"y", "yes", "on", "1", "true", "t"})  # the words that mean true to Ansible


def is_true(text: str | None) -> bool:
    """Checks whether Ansible takes a variable's value as true."""
    return text is not None and text.strip().lower() in _YES


def wants_colour(environ: Mapping[str, str] = os.environ) -> bool:
    """Decides, by Ansible's rules, whether standard output gets colours."""
    if is_true(environ.get("ANSIBLE_FORCE_COLOR")):
        return True
    if environ.get("NO_COLOR") or is_true(environ.get("ANSIBLE_NOCOLOR")):
        return False
    return sys.stdout.isatty() and environ.get("TERM", "dumb") != "dumb"


def run(login: Profile, kind: Kind, body: Mapping[str, Any], *, wait: bool = True, as_json: bool = False) -> int:
    """Submits a task, shows its live output and returns the exit code; the first Ctrl-C cancels, the second exits.

    wait: otherwise print the task_id and exit; as_json: show the results by host instead of the output.
    """
    with _Interrupts(login) as interrupts, login.client() as client:
        try:
            task_id = client.submit(kind, body, before_retry=interrupts.begin_retry)
            interrupts.watch(task_id)
            if not wait:
                _print(task_id)
                return 0
            try:
                return _follow_to_end(client, task_id, as_json)
            except ClientError:
                _message(f"the task is {task_id}; flansible output --follow {task_id} shows its further output")
                raise
        except KeyboardInterrupt:
            if interrupts.task_id is None:
                _message("stopped without a reply; the task may be queued: flansible tasks shows it then")
            else:
                _message(f"stopped waiting; flansible status {interrupts.task_id} shows the state of the task")
            return EXIT_LEFT


def _follow_to_end(client: Client, task_id: str, as_json: bool) -> int:
    colour = wants_colour() and not as_json
    chunks = client.follow(task_id, colour=colour)
    if as_json:
        for _ in chunks:
            pass  # following shows the end without polling
    else:
        _show(chunks)
    status = client.wait(task_id)
    if colour and status["state"] not in COMPLETED_STATES:
        _print(_NO_COLOURS, end="")  # a terminated run may have left a colour switched on
    if as_json:
        result = client.result(task_id)
        _print(json.dumps(result, indent=2))
        if status["returncode"] != 0 and not (result["contacted"] or result["dark"]):
            # Without any result, Ansible's output is the only place that names the cause.
            sys.stderr.write(client.output(task_id).data.decode(errors="replace"))
    return _exit_code(status)


def _exit_code(status: TaskStatusReply) -> int:
    if status["state"] in COMPLETED_STATES and status["returncode"] is not None:
        return status["returncode"]
    _message(f"task {status['task_id']}: {status['state']}: {status['description']}")
    return EXIT_CANCELED if status["state"] == State.CANCELED else EXIT_BROKEN


class _Interrupts:
    """Handles Ctrl-C and SIGTERM while a task runs: the first cancels it and keeps following, the second exits.

    While a submission is retried, because its reply was lost, the first one exits; also where the cancel has no reply.
    """

    def __init__(self, login: Profile) -> None:
        self.task_id: str | None = None
        self._login = login
        self._count = 0
        self._is_canceling = False
        self._is_retrying = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            # A shell starts background jobs with SIGINT ignored; keep it ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def begin_retry(self) -> None:
        """Called before a submission is sent again. Raises KeyboardInterrupt if a signal arrived before."""
        self._is_retrying = True
        if self._count:
            raise KeyboardInterrupt

    def watch(self, task_id: str) -> None:
        """Sets the task to cancel; cancels it at once if a signal arrived during its submission."""
        self.task_id = task_id
        if self._count:
            self._cancel(task_id)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count > (2 if self._is_canceling else 1) or (self._is_retrying and self.task_id is None):
            raise KeyboardInterrupt
        if self._is_canceling:
            return  # a cancel request is in progress: the second signal waits for it, the third does not
        if self.task_id is None:
            _message("the task is canceled as soon as it is submitted; press Ctrl-C again to exit at once")
        else:
            self._cancel(self.task_id)

    def _cancel(self, task_id: str) -> None:
        count_before = self._count
        self._is_canceling = True
        try:
            _message(f"canceling task {task_id}; press Ctrl-C again to exit at once")
            # A separate connection: this signal has interrupted a read on the other one.
            with self._login.client(_CANCEL_TIMEOUT_SECONDS) as client:
                client.cancel(task_id)
        except ClientError as error:
            if not (isinstance(error, ServiceRefused) and error.status == 409):  # 409: it is final already
                _message(f"task {task_id} was not canceled: {error}")
            if isinstance(error, ServiceUnreachable):
                raise KeyboardInterrupt from error
        finally:
            self._is_canceling = False
        if self._count > count_before:
            raise KeyboardInterrupt


def show_status(login: Profile, task_id: str, as_json: bool) -> int:
    with login.client() as client:
        status = client.status(task_id)
    if as_json:
        _print(json.dumps(status, indent=2))
    else:
        width = max(len(name) for name in status)
        _print("\n".join(f"{name:{width}}  {'-' if value is None else value}" for name, value in status.items()))
    return 0


def show_output(login: Profile, task_id: str, format: Format | None, follow: bool) -> int:
    """Shows the output; format None: with colours if the terminal has them. Ctrl-C stops following, not the task."""
    chosen: Format = format or ("ansi" if wants_colour() else "txt")
    with login.client() as client:
        try:
            chunks = (
                client.follow(task_id, colour=chosen == "ansi") if follow else [client.output(task_id, chosen).data]
            )
            # It may be another user's task. A file or a pipe gets what the task has printed.
            _show(filtered(chunks) if sys.stdout.isatty() else chunks)
        except KeyboardInterrupt:
            return EXIT_LEFT
    return 0


def show_result(login: Profile, task_id: str) -> int:
    with login.client() as client:
        _print(json.dumps(client.result(task_id), indent=2))
    return 0


def show_events(login: Profile, task_id: str, after: int, follow: bool) -> int:
    """Shows events, one JSON line each. Ctrl-C stops following, not the task."""
    with login.client() as client:
        try:
            _show(f"{json.dumps(event)}\n".encode() for event in client.events(task_id, after, follow))
        except KeyboardInterrupt:
            return EXIT_LEFT
    return 0


def cancel(login: Profile, task_id: str) -> int:
    with login.client() as client:
        status = client.cancel(task_id)
    if status["state"] == State.CANCELED:
        _print(status["description"])
    else:
        _print(f"{status['state']}; it is being canceled")
    return 0


def list_tasks(login: Profile, limit: int, state: str | None, as_json: bool) -> int:
    with login.client() as client:
        page = client.tasks(limit, state=state)
    if as_json:
        _print(json.dumps(page, indent=2))
        return 0
    for task in page["tasks"]:
        _print(f"{task['task_id']}  {task['submitted_at']}  {task['state']:9}  {task['summary']}")
    return 0


def _show(chunks: Iterable[bytes]) -> None:
    """Writes bytes to standard output as they arrive. If its reader has closed it, the rest is read and dropped."""
    gone = False
    for chunk in chunks:
        if gone:
            continue
        try:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            gone = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_lines(lines: Iterable[str]) -> None:
    """Writes lines to standard output."""
    _show(f"{line}\n".encode(errors="backslashreplace") for line in lines)


def _print(text: str, end: str = "\n") -> None:
    _show([f"{text}{end}".encode(errors="backslashreplace")])


def _message(text: str) -> None:
    """Writes one line to standard error in one write: a signal handler may call this in the middle of another call."""
    line_end = "\n" if sys.stderr.isatty() else ""  # after the ^C that the terminal shows
    os.write(2, f"{line_end}flansible: {text}\n".encode(errors="backslashreplace"))
