"""The HTTP client: submit, ask, follow and cancel from Python. The client commands are built on it as well.

Needs httpx and nothing of the service (import law). Whatever goes wrong is one of `errors.ClientError`. Waiting and
following outlive a service that is away for a while. A submission carries an Idempotency-Key: when its answer is lost
it is sent again, and still nothing is ever started twice.

    with Client("http://127.0.0.1:3000", "admin", "secret") as client:
        task_id = client.adhoc("ping", host_pattern="web", inventory="inventories/dev")
        for chunk in client.follow(task_id):
            sys.stdout.buffer.write(chunk)
        print(client.wait(task_id)["returncode"])
"""

from __future__ import annotations

import re
import socket
import ssl
import time
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote

import httpx

from flansible.client.replies import (
    EventReply,
    Format,
    Kind,
    Output,
    TaskPageReply,
    TaskResultReply,
    TaskStatusReply,
)
from flansible.errors import FieldError, OptionError, ServiceRefused, ServiceUnreachable, WaitTimeout

_SUBMIT_PATHS: dict[str, str] = {
    "adhoc": "/api/ansiblecommand",
    "playbook": "/api/ansibleplaybook",
    "git": "/api/git",
}
_NOT_FLANSIBLE = "unexpected_reply"
_IN_FLIGHT = "idempotency_key_in_flight"
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"  # OpenSSL's word, of which httpx keeps the text alone
_IN_PROGRESS = "PROGRESS"
_TOKEN = re.compile(r"[\x21-\x7e]+")
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
_LONG_POLL_SECONDS = 20  # well within an answer's time
_POLL_SECONDS = 0.5  # between ranges of output, while there is no place to follow it
# A followed run may print nothing for hours: the kernel asks whether the other side is still there. What is quiet for
# longer than this is asked for anew all the same.
_QUIET_SECONDS = 900.0
_KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
if hasattr(socket, "TCP_KEEPIDLE"):
    _KEEP_ALIVE += [
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    ]


class Client:
    """One user's connection to one service. Use it as a context manager, or call `close`; not from several threads.

    Every method raises ServiceRefused when the answer is an error and ServiceUnreachable when there is none. Proxies
    that the environment names are not used.
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
        """url: where the service is, such as `http://127.0.0.1:3000`; token: in place of user and password;
        timeout_seconds: for each answer; patience_seconds: how long `wait` and `follow` keep trying while the service
        does not answer; verify: False takes any TLS certificate, a context decides itself; ca_file: certificates, in
        PEM form, of which one must have signed the service's, in place of those the system trusts. Raises OptionError
        for what is no URL, and for a ca_file that holds no certificate.
        """
        is_tls = url_scheme(url) == "https"
        try:
            auth = _TokenAuth(token) if token else httpx.BasicAuth(user, password)
        except UnicodeEncodeError:
            raise OptionError("the user or the password is not UTF-8 text") from None
        if is_tls and ca_file is not None:
            verify = _trusting(ca_file)
        self.url = url.rstrip("/")
        self._user = "" if token else user
        self._patience_seconds = patience_seconds
        self._http = httpx.Client(
            base_url=self.url,
            auth=auth,
            timeout=timeout_seconds,
            transport=httpx.HTTPTransport(
                # Without TLS there is nothing to verify, and loading the certificates takes longer than a request.
                verify=verify if is_tls else False,
                socket_options=_KEEP_ALIVE,
            ),
            # A proxy that compresses would hold back what is to be seen at once.
            headers={"Accept-Encoding": "identity"},
        )
        self._follow_timeout = httpx.Timeout(timeout_seconds, read=_QUIET_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

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
        """Run one module, as `ansible HOST_PATTERN -m MODULE -a MODULE_ARGS`; returns the task_id.

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
        playbook_dir: str,
        *,
        inventory: str | Sequence[str] | None = None,
        extra_vars: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """Run playbooks, as `cd PLAYBOOK_DIR && ansible-playbook PLAYBOOK...`; returns the task_id.

        playbook_dir: on the service's machines; a relative one counts from its `playbook_root`;
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
        """Update a checkout to what its remote has; returns the task_id. reset: discard local changes and commits."""
        named = {"playbook_dir": playbook_dir, "remote_name": remote_name, "branch_name": branch_name, "reset": reset}
        return self.submit("git", _body(named, None))

    def submit(self, kind: Kind, body: Mapping[str, Any], idempotency_key: str | None = None) -> str:
        """Send a request body as it is; returns the task_id.

        idempotency_key: the same key with the same body gives the same task for 24 hours; default: a new one. Under it
        the request is sent again when the answer was lost. After ServiceUnreachable it may be queued all the same.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        try:
            request = self._http.build_request("POST", _SUBMIT_PATHS[kind], json=dict(body), headers=headers)
        except (TypeError, ValueError) as error:
            raise OptionError(f"the request cannot be written as JSON: {error}") from error
        reply = self._send_until_answered(request)
        task_id = self._json(reply).get("task_id")
        if not isinstance(task_id, str):
            raise self._not_flansible(reply)
        return task_id

    def status(self, task_id: str) -> TaskStatusReply:
        """How the task is doing now."""
        return cast(TaskStatusReply, self._get(f"/api/ansibletaskstatus/{quote(task_id, safe='')}"))

    def result(self, task_id: str) -> TaskResultReply:
        """Results by host so far, all pages together; they are complete when the task is final."""
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
        """What happened, in order, each event once; `follow`: until the task is final, whose last event is `final`.

        after: begin behind this `seq`. A service that is away for a while is waited for.
        """
        path = f"/api/ansibletaskevents/{quote(task_id, safe='')}"
        patience = _Patience(self._patience_seconds)
        while True:
            try:
                page = self._get(path, {"after": after, "wait": _LONG_POLL_SECONDS if follow else None})
            except (ServiceUnreachable, ServiceRefused) as error:
                time.sleep(patience.pause_seconds(error))
                continue
            patience.renew()
            yield from page["events"]
            if page["final"] or not (follow or page["events"]):
                return
            after = page["next_after"]

    def tasks(self, limit: int = 50, before: int | None = None, state: str | None = None) -> TaskPageReply:
        """The user's tasks (admin: everybody's), newest first. limit: 1 to 1000; before: a page's `next_before`."""
        asked = {"limit": limit, "before": before, "state": state}
        return cast(TaskPageReply, self._get("/api/ansibletasks", asked))

    def cancel(self, task_id: str) -> TaskStatusReply:
        """Have the task ended; its status now. Raises ServiceRefused (409, `task_final`) when it has ended already."""
        request = self._http.build_request("POST", f"/api/ansibletaskcancel/{quote(task_id, safe='')}")
        return cast(TaskStatusReply, self._json(self._send(request)))

    def output(self, task_id: str, format: Format = "txt", offset: int = 0) -> Output:
        """What the task has printed from a byte of the plain text on. ansi: with Ansible's colours; html: a page."""
        request = self._http.build_request("GET", _output_path(task_id), params={"format": format, "offset": offset})
        reply = self._send(request)
        try:
            next_offset = int(reply.headers["Flansible-Next-Offset"])
            return Output(reply.content, next_offset, reply.headers["Flansible-Final"] == "true")
        except (KeyError, ValueError):
            raise self._not_flansible(reply) from None

    def wait(self, task_id: str, timeout_seconds: float | None = None, poll_seconds: float = 0.1) -> TaskStatusReply:
        """Ask until the task is final; its final status. Raises WaitTimeout when it is not in time; it goes on."""
        give_up_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        patience = _Patience(self._patience_seconds)
        while True:
            try:
                status = self.status(task_id)
                if status["Status"] != _IN_PROGRESS:
                    return status
                patience.renew()
                pause = poll_seconds
            except (ServiceUnreachable, ServiceRefused) as error:
                pause = patience.pause_seconds(error)
            if give_up_at is not None and time.monotonic() + pause > give_up_at:
                raise WaitTimeout(f"task {task_id} is not final after {timeout_seconds:g} seconds")
            time.sleep(pause)

    def follow(self, task_id: str, offset: int = 0, colour: bool = False) -> Iterator[bytes]:
        """Output as it is printed, until the task is final; a broken connection is made anew where it broke.

        offset: begin at this byte of the plain text; colour: with Ansible's colours as escape codes. Chunks come as
        they arrive and may end within a line or a character.
        """
        return self._coloured(task_id, offset) if colour else self._plain(task_id, offset)

    def _plain(self, task_id: str, offset: int) -> Iterator[bytes]:
        patience = _Patience(self._patience_seconds)
        while True:
            pause = _FIRST_PAUSE_SECONDS
            try:
                try:
                    for chunk in self._stream(task_id, offset):
                        patience.renew()
                        offset += len(chunk)
                        yield chunk
                except ServiceRefused as refused:
                    if not refused.passes:
                        raise
                    pause = _POLL_SECONDS
                # A reply can end well and too soon, when the web server stops or a proxy does. The task's end is this.
                rest = self.output(task_id, offset=offset)
            except (ServiceUnreachable, ServiceRefused) as error:
                time.sleep(patience.pause_seconds(error))
                continue
            patience.renew()
            offset = rest.next_offset
            yield rest.data
            if rest.final:
                return
            time.sleep(pause)

    def _coloured(self, task_id: str, offset: int) -> Iterator[bytes]:
        """What a broken stream with colours has brought cannot be counted in plain bytes, so colours come in ranges,
        which are whole or not at all; the plain text is followed beside them and tells when there is more."""
        patience = _Patience(self._patience_seconds)
        shown = seen = offset
        for chunk in self._plain(task_id, offset):
            seen += len(chunk)
            while seen > shown:
                try:
                    part = self.output(task_id, "ansi", shown)
                except (ServiceUnreachable, ServiceRefused) as error:
                    time.sleep(patience.pause_seconds(error))
                    continue
                patience.renew()
                shown = part.next_offset
                yield part.data

    def _stream(self, task_id: str, offset: int) -> Iterator[bytes]:
        """One followed reply, until it ends or breaks. (Without output not even its head comes.)"""
        asked: dict[str, str | int] = {"follow": "true", "offset": offset}
        with self._translated():
            try:
                with self._http.stream(
                    "GET", _output_path(task_id), params=asked, timeout=self._follow_timeout
                ) as reply:
                    if not reply.is_success:
                        reply.read()
                    yield from self._accepted(reply).iter_bytes()
            except httpx.ReadTimeout:
                return  # quiet, or gone without a word: the next question will tell

    def _get(self, path: str, asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
        given = {name: value for name, value in (asked or {}).items() if value is not None}
        return self._json(self._send(self._http.build_request("GET", path, params=given)))

    def _send_until_answered(self, request: httpx.Request) -> httpx.Response:
        """Send a request that may safely come twice. One that did not even reach the service is not tried for long."""
        patience = _Patience(self._patience_seconds)
        was_sent = False
        while True:
            try:
                return self._send(request)
            except ServiceUnreachable as error:
                was_sent = was_sent or not isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)
                if not was_sent:
                    raise
                pause = patience.pause_seconds(error)
            except ServiceRefused as error:
                if error.code != _IN_FLIGHT:
                    raise
                pause = error.retry_after_seconds or _FIRST_PAUSE_SECONDS
            time.sleep(pause)

    def _send(self, request: httpx.Request) -> httpx.Response:
        with self._translated():
            return self._accepted(self._http.send(request))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise ServiceUnreachable(f"{self.url} does not answer in time") from error
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            if _UNTRUSTED in why:
                advice = "name the certificate that signed it (ca_file, --api-ca-file, FLANSIBLE_CA_FILE)"
                raise ServiceUnreachable(f"{self.url} has a certificate that is not trusted here; {advice}") from error
            raise ServiceUnreachable(f"{self.url} does not answer: {why}; is the service up?") from error

    def _json(self, reply: httpx.Response) -> dict[str, Any]:
        try:
            document = reply.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self._not_flansible(reply)
        return document

    def _accepted(self, reply: httpx.Response) -> httpx.Response:
        """The reply, when it is a success. Raises ServiceRefused with what the error body says."""
        if reply.is_success:
            return reply
        try:
            body = reply.json()
            message, code = str(body["message"]), str(body["code"])
            errors = [FieldError(str(item["field"]), str(item["message"])) for item in body["errors"]]
        except (ValueError, KeyError, TypeError):
            raise self._not_flansible(reply) from None
        if reply.status_code == 401:
            what = f"password for the user {self._user}" if self._user else "token"
            message = f"{self.url} does not take this {what}"
        raise _refused(reply, message, code, errors)

    def _not_flansible(self, reply: httpx.Response) -> ServiceRefused:
        said = f"{reply.status_code} {reply.reason_phrase}".strip()
        leads = f", which leads to {reply.headers['Location']}" if reply.has_redirect_location else ""
        return _refused(reply, f"{self.url} answers {said}{leads}, and not as Flansible does", _NOT_FLANSIBLE, [])


class _TokenAuth(httpx.Auth):
    def __init__(self, token: str) -> None:
        # What cannot be in a header would be refused further down, in words that show it.
        if not _TOKEN.fullmatch(token):
            raise OptionError("the token is not one word of ASCII characters")
        self._header = f"Bearer {token}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = self._header
        yield request


class _Patience:
    """How long to go on asking a service that does not answer, and how often."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """It has answered."""
        self._give_up_at: float | None = None
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    def pause_seconds(self, error: ServiceUnreachable | ServiceRefused) -> float:
        """How long to pause before asking again. Raises `error` when that would not help, or the time is over."""
        now = time.monotonic()
        if self._give_up_at is None:
            self._give_up_at = now + self._seconds
        if now >= self._give_up_at or (isinstance(error, ServiceRefused) and not error.passes):
            raise error
        asked = error.retry_after_seconds if isinstance(error, ServiceRefused) else None
        pause = self._pause_seconds if asked is None else asked
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        return min(pause, self._give_up_at - now)


def url_scheme(url: str) -> str:
    """`http` or `https`. Raises OptionError for what cannot be the URL of a service."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 0) > 65535:
        shown = url.rpartition("@")[2]  # what stands before may be a password
        raise OptionError(f"{shown!r} is not the URL of a service; one is http://127.0.0.1:3000")
    return parsed.scheme


def _trusting(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if isinstance(error, FileNotFoundError | PermissionError) else "it holds no certificate"
        raise OptionError(f"the certificates in {ca_file} cannot be used: {reason}") from error


def _refused(reply: httpx.Response, message: str, code: str, errors: list[FieldError]) -> ServiceRefused:
    try:
        retry_after: float | None = max(0.0, float(reply.headers["Retry-After"]))
    except (KeyError, ValueError):
        retry_after = None
    return ServiceRefused(message, status=reply.status_code, code=code, errors=errors, retry_after_seconds=retry_after)


def _body(named: Mapping[str, Any], options: Mapping[str, Any] | None) -> dict[str, Any]:
    twice = sorted(set(named) & set(options or {}))
    if twice:
        raise OptionError(f"{twice[0]} has a parameter of its own; leave it out of options")
    return {name: value for name, value in {**named, **(options or {})}.items() if value is not None}


def _output_path(task_id: str) -> str:
    return f"/api/ansibletaskoutput/{quote(task_id, safe='')}"
