"""The HTTP client: submit, poll, follow and cancel tasks from Python. The client commands use it as well.

Needs httpx and nothing of the service (import law). Every error is an `errors.ClientError`. Waiting and following
continue when the service is down for a while. A submission carries an Idempotency-Key: if its reply is lost, it is sent
again, and nothing is started twice.

    with Client("http://127.0.0.1:3000", "admin", "secret") as client:
        task_id = client.adhoc("ping", host_pattern="web", inventory="inventories/dev")
        for chunk in client.follow(task_id):
            sys.stdout.buffer.write(chunk)
        print(client.wait(task_id)["returncode"])
"""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote

from flansible.client.http_connection import FIRST_PAUSE_SECONDS, HttpConnection, Retry
from flansible.client.replies import (
    EventReply,
    Format,
    Kind,
    Output,
    TaskPageReply,
    TaskResultReply,
    TaskStatusReply,
)
from flansible.errors import OptionError, ServiceRefused, ServiceUnreachable, WaitTimeout

_SUBMIT_PATHS: dict[str, str] = {
    "adhoc": "/api/ansiblecommand",
    "playbook": "/api/ansibleplaybook",
    "git": "/api/git",
}
_IN_PROGRESS = "PROGRESS"
_LONG_POLL_SECONDS = 20  # well below the timeout of a reply
_POLL_SECONDS = 0.5  # between ranges of output, while the service has no thread slot for a follower


class Client:
    """One user's connection to one service. Use it as a context manager, or call `close`; not from several threads.

    Every method raises ServiceRefused for an error reply and ServiceUnreachable if there is no reply. Proxies named in
    the environment are not used.
    """

    def __init__(
        self,
        url: str,
        user: str = "",
        password: str = "",
        *,
        token: str = "",
        timeout_seconds: float = 30.0,
        patience_seconds: float = 120.0,
        verify: bool | ssl.SSLContext = True,
        ca_file: str | None = None,
    ) -> None:
        """Connects at the first request. Raises OptionError for an invalid URL or a ca_file without a certificate.

        url: of the service, such as `http://127.0.0.1:3000`; token: instead of user and password; timeout_seconds: for
        each reply; patience_seconds: how long `wait` and `follow` retry while the service does not reply; verify: False
        accepts any TLS certificate, a context decides itself; ca_file: certificates in PEM form, one of which must have
        signed the service's, instead of those the system trusts.
        """
        self._connection = HttpConnection(
            url, user, password, token, timeout_seconds, patience_seconds, verify, ca_file
        )
        self._patience_seconds = patience_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._connection.close()

    def adhoc(
        self,
        module: str,
        module_args: str | Mapping[str, Any] | None = None,
        *,
        host_pattern: str = "localhost",
        inventory: str | Sequence[str] | None = None,
        extra_vars: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """Runs one module, as `ansible HOST_PATTERN -m MODULE -a MODULE_ARGS`; returns the task_id.

        options: any other field of `POST /api/ansiblecommand`, such as `{"become": True, "forks": 20}`.
        """
        named = {
            "module": module,
            "module_args": module_args,
            "host_pattern": host_pattern,
            "inventory": inventory,
            "extra_vars": extra_vars,
        }
        return self.submit("adhoc", _body(named, options))

    def playbook(
        self,
        playbook: str | Sequence[str],
        playbook_dir: str | None = None,
        *,
        inventory: str | Sequence[str] | None = None,
        extra_vars: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """Runs playbooks, as `cd PLAYBOOK_DIR && ansible-playbook PLAYBOOK...`; returns the task_id.

        playbook_dir: on the service's machines; default, and base of a relative path: its `playbook_root`;
        options: any other field of `POST /api/ansibleplaybook`, such as `{"check": True, "tags": ["web"]}`.
        """
        named = {
            "playbook": playbook,
            "playbook_dir": playbook_dir,
            "inventory": inventory,
            "extra_vars": extra_vars,
        }
        return self.submit("playbook", _body(named, options))

    def git(
        self, playbook_dir: str, *, remote_name: str = "origin", branch_name: str | None = None, reset: bool = False
    ) -> str:
        """Updates a checkout from its remote; returns the task_id. reset: discard local changes and commits."""
        named = {"playbook_dir": playbook_dir, "remote_name": remote_name, "branch_name": branch_name, "reset": reset}
        return self.submit("git", _body(named, None))

    def submit(
        self,
        kind: Kind,
        body: Mapping[str, Any],
        idempotency_key: str | None = None,
        before_retry: Callable[[], None] | None = None,
    ) -> str:
        """Submits a request body unchanged; returns the task_id.

        idempotency_key: the same key with the same body returns the same task for 24 hours; default: a new key. With it
        the request is sent again if the reply was lost, after calling `before_retry`, which may raise to stop that.
        After ServiceUnreachable the task may be queued nevertheless.
        """
        return self._submit(_SUBMIT_PATHS[kind], body, idempotency_key, before_retry)

    def launch(self, template: str, values: Mapping[str, Any] | None = None, idempotency_key: str | None = None) -> str:
        """Launches a template; returns the task_id. values: what it leaves open, such as `{"extra_vars": {...}}`."""
        return self._submit(f"/api/templates/{quote(template, safe='')}/launch", values or {}, idempotency_key, None)

    def _submit(
        self,
        path: str,
        body: Mapping[str, Any],
        idempotency_key: str | None,
        before_retry: Callable[[], None] | None,
    ) -> str:
        key = idempotency_key or str(uuid.uuid4())
        reply = self._connection.post_once(path, body, key, before_retry)
        task_id = self._connection.json_object(reply).get("task_id")
        if not isinstance(task_id, str):
            raise self._connection.not_flansible(reply)
        return task_id

    def status(self, task_id: str) -> TaskStatusReply:
        """Returns the present status of the task."""
        return cast(TaskStatusReply, self._get(f"/api/ansibletaskstatus/{quote(task_id, safe='')}"))

    def result(self, task_id: str) -> TaskResultReply:
        """Returns the results by host so far, all pages joined; they are complete once the task is final."""
        path = f"/api/ansibletaskresult/{quote(task_id, safe='')}"
        whole = cast(TaskResultReply, self._get(path))
        while whole["next_after"] is not None:
            page = cast(TaskResultReply, self._get(path, {"after": whole["next_after"]}))
            for host, results in page["contacted"].items():
                whole["contacted"].setdefault(host, []).extend(results)
            whole["dark"] |= page["dark"]
            whole["stats"] |= page["stats"]
            whole["next_after"] = page["next_after"]
        return whole

    def events(self, task_id: str, after: int = 0, follow: bool = True) -> Iterator[EventReply]:
        """Yields the events in order, each once. follow: until the last one, `final`, of a final task.

        after: start after this `seq`. Retries while the service is down for a while.
        """
        path = f"/api/ansibletaskevents/{quote(task_id, safe='')}"
        retry = Retry(self._patience_seconds)
        while True:
            try:
                page = self._get(path, {"after": after, "wait": _LONG_POLL_SECONDS if follow else None})
            except (ServiceUnreachable, ServiceRefused) as error:
                time.sleep(retry.pause_seconds(error))
                continue
            retry.reset()
            yield from page["events"]
            if page["final"] or not (follow or page["events"]):
                return
            after = page["next_after"]

    def tasks(self, limit: int = 50, before: int | None = None, state: str | None = None) -> TaskPageReply:
        """Lists the user's tasks (admin: all tasks), newest first. limit: 1 to 1000; before: a page's `next_before`."""
        query = {"limit": limit, "before": before, "state": state}
        return cast(TaskPageReply, self._get("/api/ansibletasks", query))

    def search(self, text: str, in_output: bool = False, limit: int = 20, before: int | None = None) -> dict[str, Any]:
        """Finds finished tasks by playbook, host and messages of failures, or by their output: `GET /api/search`.

        limit: 1 to 100; before: a page's `next_before`. A page may be short even if more follow.
        """
        query = {"q": text, "in": "output" if in_output else None, "limit": limit, "before": before}
        return self._get("/api/search", query)

    def cancel(self, task_id: str) -> TaskStatusReply:
        """Cancels the task; returns its status. Raises ServiceRefused (409, `task_final`) if it is final already."""
        reply = self._connection.post(f"/api/ansibletaskcancel/{quote(task_id, safe='')}")
        return cast(TaskStatusReply, self._connection.json_object(reply))

    def compare(self, task_id: str, other_id: str | None = None) -> dict[str, Any]:
        """Returns what differs between two tasks, all pages joined: `GET /api/compare`.

        other_id: default: the last run before the task of the same playbook or module, inventory and limit that
        succeeded; ServiceRefused (404, `no_earlier_success`) when there is none.
        """
        query = {"task": task_id, "with": other_id}
        whole = self._get("/api/compare", query)
        while whole["next_after"] is not None:
            page = self._get("/api/compare", {**query, "with": whole["other"]["task_id"], "after": whole["next_after"]})
            whole["hosts"] += page["hosts"]
            whole["compared_hosts"] += page["compared_hosts"]
            whole["next_after"] = page["next_after"]
        return whole

    def apply(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Applies definitions, all or none: `POST /api/apply`. Harmless when repeated."""
        return self._connection.json_object(self._connection.post("/api/apply", body))

    def definition(self, kind: str, name: str) -> dict[str, Any]:
        """Returns a definition: `GET /api/<kind>/<name>`."""
        return self._get(f"/api/{quote(kind, safe='')}/{quote(name, safe='')}")

    def definitions(self, kind: str) -> Iterator[dict[str, Any]]:
        """Yields all definitions of a kind that the user may read, by name."""
        after: str | None = ""
        while after is not None:
            page = self._get(f"/api/{quote(kind, safe='')}", {"after": after or None})
            yield from page["items"]
            after = page["next_after"]

    def output(self, task_id: str, format: Format = "txt", offset: int = 0) -> Output:
        """Returns the output from a byte offset of the plain text. ansi: with Ansible's colours; html: a page."""
        reply = self._connection.get(_output_path(task_id), {"format": format, "offset": offset})
        try:
            next_offset = int(reply.headers["Flansible-Next-Offset"])
            return Output(reply.content, next_offset, reply.headers["Flansible-Final"] == "true")
        except (KeyError, ValueError):
            raise self._connection.not_flansible(reply) from None

    def wait(self, task_id: str, timeout_seconds: float | None = None, poll_seconds: float = 0.1) -> TaskStatusReply:
        """Polls until the task is final; returns its status. Raises WaitTimeout; the task then continues."""
        give_up_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        retry = Retry(self._patience_seconds)
        while True:
            try:
                status = self.status(task_id)
                if status["Status"] != _IN_PROGRESS:
                    return status
                retry.reset()
                pause = poll_seconds
            except (ServiceUnreachable, ServiceRefused) as error:
                pause = retry.pause_seconds(error)
            if give_up_at is not None and time.monotonic() + pause > give_up_at:
                raise WaitTimeout(f"task {task_id} is not final after {timeout_seconds:g} seconds")
            time.sleep(pause)

    def follow(self, task_id: str, offset: int = 0, colour: bool = False) -> Iterator[bytes]:
        """Yields output as it is printed, until the task is final; after a broken connection it resumes where it broke.

        offset: start at this byte of the plain text; colour: with Ansible's colours as escape codes. Chunks are yielded
        as they arrive and may end within a line or a character.
        """
        return self._coloured(task_id, offset) if colour else self._plain(task_id, offset)

    def _plain(self, task_id: str, offset: int) -> Iterator[bytes]:
        retry = Retry(self._patience_seconds)
        while True:
            pause = FIRST_PAUSE_SECONDS
            try:
                try:
                    for chunk in self._connection.stream(_output_path(task_id), {"follow": "true", "offset": offset}):
                        retry.reset()
                        offset += len(chunk)
                        yield chunk
                except ServiceRefused as refused:
                    if not refused.is_temporary:
                        raise
                    pause = _POLL_SECONDS
                # A reply can end too early without an error, if the web server or a proxy stops. This proves the end.
                rest = self.output(task_id, offset=offset)
            except (ServiceUnreachable, ServiceRefused) as error:
                time.sleep(retry.pause_seconds(error))
                continue
            retry.reset()
            offset = rest.next_offset
            yield rest.data
            if rest.final:
                return
            time.sleep(pause)

    def _coloured(self, task_id: str, offset: int) -> Iterator[bytes]:
        """Follows the plain text, and reads the coloured text in ranges whenever there is more.

        After a broken stream with colours, the bytes received cannot be counted in bytes of the plain text; a range
        arrives whole or not at all.
        """
        retry = Retry(self._patience_seconds)
        shown = seen = offset
        for chunk in self._plain(task_id, offset):
            seen += len(chunk)
            while seen > shown:
                try:
                    part = self.output(task_id, "ansi", shown)
                except (ServiceUnreachable, ServiceRefused) as error:
                    time.sleep(retry.pause_seconds(error))
                    continue
                retry.reset()
                shown = part.next_offset
                yield part.data

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._connection.json_object(self._connection.get(path, query))


def _body(named: Mapping[str, Any], options: Mapping[str, Any] | None) -> dict[str, Any]:
    twice = sorted(set(named) & set(options or {}))
    if twice:
        raise OptionError(f"{twice[0]} is a separate parameter; leave it out of options")
    return {name: value for name, value in {**named, **(options or {})}.items() if value is not None}


def _output_path(task_id: str) -> str:
    return f"/api/ansibletaskoutput/{quote(task_id, safe='')}"
