"""The connection to a service: TLS, login, keep-alive, retries, and error replies as errors. For `Client` in api.py."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from flansible.client.unreachable import unreachable
from flansible.errors import FieldError, OptionError, ServiceRefused, ServiceUnreachable

_NOT_FLANSIBLE = "unexpected_reply"
_IN_FLIGHT = "idempotency_key_in_flight"
_TOKEN = re.compile(r"[\x21-\x7e]+")
FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
# A followed run may print nothing for hours: the kernel probes the connection. After this long without output, the
# client reconnects all the same.
_QUIET_SECONDS = 900.0
_KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
if hasattr(socket, "TCP_KEEPIDLE"):
    _KEEP_ALIVE += [
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    ]


class HttpConnection:
    """HTTP requests of one user to one service. Raises ServiceRefused for an error reply, ServiceUnreachable for none.

    timeout_seconds: for each reply; patience_seconds: how long a request whose reply was lost is sent again. The other
    parameters are those of `Client`, and so are the errors.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        token: str,
        timeout_seconds: float,
        patience_seconds: float,
        verify: bool | ssl.SSLContext,
        ca_file: str | None,
    ) -> None:
        is_tls = url_scheme(url) == "https"
        try:
            auth = _TokenAuth(token) if token else httpx.BasicAuth(user, password)
        except UnicodeEncodeError:
            raise OptionError("the user or the password is not UTF-8 text") from None
        if is_tls and ca_file is not None:
            verify = _tls_context(ca_file)
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
            # A proxy that compresses would delay output that should be shown at once.
            headers={"Accept-Encoding": "identity"},
        )
        self._follow_timeout = httpx.Timeout(timeout_seconds, read=_QUIET_SECONDS)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> httpx.Response:
        """query: what is None is left out."""
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return self._send(self._http.build_request("GET", path, params=given))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        return self._send(self._http.build_request("POST", path, json=body))

    def post_once(
        self, path: str, body: Mapping[str, Any], key: str, before_retry: Callable[[], None] | None = None
    ) -> httpx.Response:
        """Posts under this Idempotency-Key, again if the reply was lost, but not if it was never sent.

        before_retry: called before each further attempt; it may raise to stop that.
        """
        try:
            request = self._http.build_request("POST", path, json=dict(body), headers={"Idempotency-Key": key})
        except (TypeError, ValueError) as error:
            raise OptionError(f"the request cannot be written as JSON: {error}") from error
        retry = Retry(self._patience_seconds)
        was_sent = False
        while True:
            try:
                return self._send(request)
            except ServiceUnreachable as error:
                was_sent = was_sent or not isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)
                if not was_sent:
                    raise
                pause = retry.pause_seconds(error)
            except ServiceRefused as error:
                if error.code != _IN_FLIGHT:
                    raise
                pause = error.retry_after_seconds or FIRST_PAUSE_SECONDS
            if before_retry is not None:
                before_retry()
            time.sleep(pause)

    def stream(self, path: str, query: Mapping[str, str | int]) -> Iterator[bytes]:
        """Yields the chunks of one followed reply until it ends or breaks. (Its head comes with the first output.)"""
        with self._translated():
            try:
                with self._http.stream("GET", path, params=query, timeout=self._follow_timeout) as reply:
                    if not reply.is_success:
                        reply.read()
                    yield from self._require_success(reply).iter_bytes()
            except httpx.ReadTimeout:
                return  # quiet, or gone without an error: the next request shows which

    def _send(self, request: httpx.Request) -> httpx.Response:
        with self._translated():
            return self._require_success(self._http.send(request))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise unreachable(self.url, error) from error

    def json_object(self, reply: httpx.Response) -> dict[str, Any]:
        """Returns the body of a reply, which has to be a JSON object."""
        try:
            document = reply.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self.not_flansible(reply)
        return document

    def _require_success(self, reply: httpx.Response) -> httpx.Response:
        """Returns the reply if it is a success. Raises ServiceRefused with the contents of the error body."""
        if reply.is_success:
            return reply
        try:
            body = reply.json()
            message, code = str(body["message"]), str(body["code"])
            errors = [FieldError(str(item["field"]), str(item["message"])) for item in body["errors"]]
        except (ValueError, KeyError, TypeError):
            raise self.not_flansible(reply) from None
        if reply.status_code == 401:
            what = f"password for the user {self._user}" if self._user else "token"
            message = f"{self.url} does not accept this {what}"
        raise _refused(reply, message, code, errors)

    def not_flansible(self, reply: httpx.Response) -> ServiceRefused:
        """Returns the error to raise for a reply that something else has sent."""
        said = f"{reply.status_code} {reply.reason_phrase}".strip()
        leads = f" and redirects to {reply.headers['Location']}" if reply.has_redirect_location else ""
        return _refused(
            reply, f"{self.url} replied {said}{leads}, which is not a reply of Flansible", _NOT_FLANSIBLE, []
        )


class _TokenAuth(httpx.Auth):
    def __init__(self, token: str) -> None:
        # httpx would refuse what cannot be in a header, with a message that shows the token.
        if not _TOKEN.fullmatch(token):
            raise OptionError("the token is not one word of ASCII characters")
        self._header = f"Bearer {token}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = self._header
        yield request


class Retry:
    """Decides how long and how often to retry while the service does not reply."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.reset()

    def reset(self) -> None:
        """Starts over after a reply."""
        self._give_up_at: float | None = None
        self._pause_seconds = FIRST_PAUSE_SECONDS

    def pause_seconds(self, error: ServiceUnreachable | ServiceRefused) -> float:
        """Returns the pause before the next attempt. Raises `error` if retrying cannot help or the time is over."""
        now = time.monotonic()
        if self._give_up_at is None:
            self._give_up_at = now + self._seconds
        if now >= self._give_up_at or not error.is_temporary:
            raise error
        requested = error.retry_after_seconds if isinstance(error, ServiceRefused) else None
        pause = self._pause_seconds if requested is None else requested
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        return min(pause, self._give_up_at - now)


def url_scheme(url: str) -> str:
    """Returns `http` or `https`. Raises OptionError if this is not a valid URL of a service."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 0) > 65535:
        shown = url.rpartition("@")[2]  # the part before it may hold a password
        raise OptionError(f"{shown!r} is not a valid URL of a service; an example is http://127.0.0.1:3000")
    return parsed.scheme


def _tls_context(ca_file: str) -> ssl.SSLContext:
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
