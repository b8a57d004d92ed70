"""`flansible flower`: Celery's monitor, behind the login of the user admin in rbac.json.

Run by the command, also as a child of `flansible up --flower`. A request in order:

1. `_ProtectedFlower.find_handler`  the dispatcher: covers every handler, those that a later Flower adds as well
2. `_AccessPolicy.refusal`          checks the password (`AdminLogin`), the page's origin, and whether it is a control
3. `_ProtectedRequest`              sends the refusal, or passes the request on to Flower's handler
4. Flower's own login               is on as well, with a random password that only step 3 adds: a request that bypassed
                                    the policy would be refused here

Flower's revoke and terminate cancel the task, as the cancel route does (`_Revoke`). Its other controls are refused.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import re
import secrets
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flower.api import BaseApiHandler
from flower.app import Flower
from flower.options import options
from flower.urls import settings as flower_settings
from flower.views.tasks import TaskView
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import HTTPError, OutputTransform, authenticated

from flansible.audit.log import Audit, AuditEvent
from flansible.broker import app as broker_app
from flansible.config import Settings, is_loopback
from flansible.errors import BrokerUnavailable, ConfigurationError, Fault, StoreUnavailable, TooManyRequests
from flansible.identity import passwords
from flansible.identity.request_origin import SAFE_METHODS, is_cross_origin
from flansible.identity.users import ADMIN, RbacFile
from flansible.models import FINAL_STATES, State, is_task_id
from flansible.monitoring.admin_login import AdminLogin
from flansible.store import Retention, Store

log = logging.getLogger(__name__)

# Flower's default lacks args, the line that says what a task does. A task's result is its final state.
_TASK_COLUMNS = "args,state,result,received,started,runtime,worker,uuid"
_MAX_BODY_BYTES = 1024 * 1024
_IDLE_TIMEOUT_SECONDS = 300.0
_BODY_TIMEOUT_SECONDS = 30.0
_LOGIN_THREADS = 4
# POSTs of Flower that only read. Its other POSTs are controls that bypass our records (a queue that a worker stops
# consuming stays so for good): refused, except revoke, which has a handler of ours.
_READ_ONLY_POSTS = frozenset({"/tasks/datatable"})
_REVOKE = r"/api/task/revoke/([^/]+)"
_STORE_REPLY_SECONDS = 3.0
_NO_BUTTONS = b'<div class="detail-actions">'
_REVOKE_BUTTON = b'<button class="btn btn-danger" id="task-revoke">Revoke</button>'


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, which end the process.

    Raises ConfigurationError before anything listens: rbac.json is invalid or has no admin, admin still has the default
    password and other machines can reach Flower, or the address cannot be bound.
    """
    users = _users(settings)
    store = Store(settings.store_url, Retention(), _STORE_REPLY_SECONDS)
    policy = _AccessPolicy(AdminLogin(users, store, settings))
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, loop.stop)
    sockets = _listen(settings)
    broker_app.configure(settings)
    application = _application(policy, store)
    server = HTTPServer(
        application,
        max_body_size=_MAX_BODY_BYTES,
        idle_connection_timeout=_IDLE_TIMEOUT_SECONDS,
        body_timeout=_BODY_TIMEOUT_SECONDS,
    )
    server.add_sockets(sockets)
    application.start()
    # Python would wait for Flower's threads, which may wait for a broker that is away. They have nothing to save.
    os._exit(0)


def _users(settings: Settings) -> RbacFile:
    found = RbacFile(settings.rbac_file, settings=settings)
    users = found.users()
    if ADMIN not in users:
        message = f"has no user {ADMIN}, and only {ADMIN} may use Flower; add one with `flansible passwd {ADMIN}`"
        raise ConfigurationError([Fault(str(settings.rbac_file), "rbac", message)])
    if not is_loopback(settings.flower_tcp_ip) and passwords.has_default_admin(users):
        message = (
            f"{ADMIN}'s password is still the default, and {settings.flower_tcp_ip} is not a loopback address; "
            f"set one with `flansible passwd {ADMIN}`, or listen on 127.0.0.1 (flower_tcp_ip)"
        )
        raise ConfigurationError([Fault(str(settings.rbac_file), ADMIN, message)])
    return found


def _listen(settings: Settings) -> list[socket.socket]:
    address, port = settings.flower_tcp_ip, settings.flower_tcp_port
    try:
        return bind_sockets(port, address.strip("[]"))
    except OSError as error:
        message = f"cannot listen on {address} port {port}: {error.strerror or error}; choose another"
        raise ConfigurationError([Fault("config", "flower_tcp_port", message)]) from error


def _application(policy: _AccessPolicy, store: Store) -> _ProtectedFlower:
    # tornado's options are one object per process. Only Flower's own command reads FLOWER_* variables and a
    # flowerconfig.py in the working directory; this one does not.
    options.basic_auth = [policy.inner_login]
    options.tasks_columns = _TASK_COLUMNS
    options.read_only = True  # hides the buttons of refused controls
    # _AccessPolicy logs refused logins; the rest of the access log is noise on the service's standard error.
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    application = _ProtectedFlower(
        policy, capp=broker_app.app, options=options, io_loop=IOLoop.current(), **flower_settings
    )
    application.add_transform(_DenyFraming)
    # Ahead of Flower's own handlers for these paths.
    application.add_handlers(
        r".*", [(_REVOKE, _Revoke, {"store": store, "audit": policy.audit}), (r"/task/(.+)", _TaskPage)]
    )
    return application


class _TaskPage(TaskView):  # type: ignore[misc]
    """Flower's page of a task, with the buttons that work here: revoke while queued, terminate while running."""

    def render(self, template_name: str, **values: Any) -> None:
        self._is_queued = "task" in values and values["task"].state == "PENDING"
        super().render(template_name, **values | {"read_only": False})

    def render_string(self, template_name: str, **values: Any) -> bytes:
        page: bytes = super().render_string(template_name, **values)
        # Flower shows this button only for tasks that a worker has received; ours receive a task when they can run it.
        return page.replace(_NO_BUTTONS, _NO_BUTTONS + _REVOKE_BUTTON) if self._is_queued else page


class _Revoke(BaseApiHandler):  # type: ignore[misc]
    """Flower's revoke and terminate: cancels the record, whether or not a worker receives the command."""

    def initialize(self, store: Store, audit: Audit) -> None:
        self._store = store
        self._audit = audit

    @authenticated
    async def post(self, task_id: str) -> None:
        executor = self.application.executor
        state = await asyncio.get_running_loop().run_in_executor(executor, self._cancel, task_id)
        if state is None:
            raise HTTPError(HTTPStatus.NOT_FOUND, f"Unknown task '{task_id}'")
        if state in FINAL_STATES and state is not State.CANCELED:
            raise HTTPError(HTTPStatus.CONFLICT, f"The task is already final: {state.value}.")
        if state is State.CANCELED:
            executor.submit(_revoke_message, task_id)
        self.write({"message": f"{'Canceled' if state is State.CANCELED else 'Ending'} '{task_id}'"})

    def _cancel(self, task_id: str) -> State | None:
        if not is_task_id(task_id):
            return None
        try:
            state = self._store.cancel(task_id, ADMIN)
            event = AuditEvent(
                "cancel",
                user=ADMIN,
                address=self.request.remote_ip or "",
                request=_described(self.request),
                outcome=state.value if state else "unknown",
                task_id=task_id,
            )
            self._audit.note(event)
            return state
        except StoreUnavailable as error:
            raise HTTPError(HTTPStatus.SERVICE_UNAVAILABLE, f"The task is not canceled: {error}") from error


def _revoke_message(task_id: str) -> None:
    """Has the workers drop the message of a canceled task, and announce that to Flower."""
    try:
        broker_app.revoke(task_id)
    except BrokerUnavailable as error:
        log.warning("%s", error)


@dataclass(frozen=True)
class _Refusal:
    """The reply to a request that is refused."""

    status: HTTPStatus
    message: str
    retry_after_seconds: int | None = None


_NO_LOGIN = _Refusal(
    HTTPStatus.UNAUTHORIZED, "Flower is for the user admin of rbac.json. Log in with admin's password (HTTP Basic)."
)
_CROSS_SITE = _Refusal(
    HTTPStatus.FORBIDDEN, "This request comes from a page of another site. Open Flower itself and try again there."
)
_READ_ONLY = _Refusal(HTTPStatus.FORBIDDEN, "Flower may only show and cancel tasks here. Its other controls are off.")


class _ProtectedFlower(Flower):  # type: ignore[misc]
    """Flower; every request is checked by the policy before a handler gets it."""

    def __init__(self, policy: _AccessPolicy, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._policy = policy

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate:
        return _ProtectedRequest(self._policy, request, super().find_handler(request, **kwargs))


class _DenyFraming(OutputTransform):
    """Forbids framing: no other site may show a page of Flower in a frame and direct an admin's clicks into it."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        headers["X-Frame-Options"] = "DENY"
        return status_code, headers, chunk


class _ProtectedRequest(HTTPMessageDelegate):
    """One request: passed to its handler once the policy allows it; until then its body is dropped."""

    def __init__(self, policy: _AccessPolicy, request: HTTPServerRequest, handler: HTTPMessageDelegate) -> None:
        self._policy = policy
        self._request = request
        self._handler = handler
        self._refusal: _Refusal | None = _NO_LOGIN

    async def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> None:
        refusal = await self._policy.refusal(self._request)
        if refusal is None:
            self._request.headers["Authorization"] = _basic(self._policy.inner_login)
            reading = self._handler.headers_received(start_line, headers)
            if reading is not None:
                await reading
        self._refusal = refusal

    def data_received(self, chunk: bytes) -> Any:
        return None if self._refusal else self._handler.data_received(chunk)

    def finish(self) -> None:
        if self._refusal:
            self._refuse(self._refusal)
        else:
            self._handler.finish()

    def on_connection_close(self) -> None:
        if not self._refusal:
            self._handler.on_connection_close()

    def _refuse(self, refusal: _Refusal) -> None:
        body = f"{refusal.message}\n".encode()
        headers = HTTPHeaders({"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))})
        if refusal.status is HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Basic realm="Flansible", charset="UTF-8"'
        if refusal.retry_after_seconds is not None:
            headers["Retry-After"] = str(refusal.retry_after_seconds)
        connection = self._request.connection
        assert connection is not None
        chunk = None if self._request.method == "HEAD" else body
        connection.write_headers(ResponseStartLine("HTTP/1.1", refusal.status, refusal.status.phrase), headers, chunk)
        connection.finish()


class _AccessPolicy:
    """Admits admin alone, with the current password of rbac.json, not from pages of other sites, and only to read
    and to cancel."""

    def __init__(self, login: AdminLogin) -> None:
        self._login = login
        self.audit = login.audit
        self._threads = ThreadPoolExecutor(_LOGIN_THREADS, thread_name_prefix="login")
        self.inner_login = f"{ADMIN}:{secrets.token_urlsafe(32)}"

    async def refusal(self, request: HTTPServerRequest) -> _Refusal | None:
        """Returns why the request is refused; None allows it."""
        header = request.headers.get("Authorization")
        if header is None:
            return _NO_LOGIN
        given = header, request.remote_ip or "", _described(request)
        try:
            # In a thread: it waits for Redis, and costs tens of milliseconds of hashing.
            found = await asyncio.get_running_loop().run_in_executor(self._threads, self._login.is_admin, *given)
        except TooManyRequests as error:
            return _Refusal(HTTPStatus.TOO_MANY_REQUESTS, str(error), error.retry_after_seconds)
        if not found:
            return _NO_LOGIN
        if _is_cross_site(request):
            return _CROSS_SITE
        reads = request.method in SAFE_METHODS or request.path in _READ_ONLY_POSTS
        revokes = request.method == "POST" and re.fullmatch(_REVOKE, request.path) is not None
        return None if reads or revokes else _READ_ONLY


def _described(request: HTTPServerRequest) -> str:
    """Returns method and path for the audit log, where lines of the API have theirs."""
    return f"{request.method} {request.path} (Flower)"


def _basic(login: str) -> str:
    return f"Basic {base64.b64encode(login.encode()).decode()}"


def _is_cross_site(request: HTTPServerRequest) -> bool:
    """Whether a page of another origin sends a request that is refused to it: a WebSocket, or an unsafe method."""
    headers = request.headers
    if request.method in SAFE_METHODS and "Upgrade" not in headers:
        return False
    return is_cross_origin(headers.get, request.host)
