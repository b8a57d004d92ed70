"""The HTTP side: checks a request against rbac.json, records and enqueues it, and reads records back.

`create_app` is the factory; `ROUTES` (flansible.web.routes) is the one list of URLs, read by flask-restful and by both
kinds of API documentation. Runs in gunicorn's processes; never imports the worker or Ansible. May import
`authorization`, `identity`, `audit`, `broker`, `playbooks`, `sealing`, `store`, `config` and what stands below.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask, Response
from flask.json.provider import DefaultJSONProvider
from flask.sessions import SessionInterface

from flansible import __version__
from flansible.audit.log import Audit, AuditEvent
from flansible.broker import app as broker_app
from flansible.config import Settings
from flansible.errors import AuditUnavailable, ConfigurationError, Fault
from flansible.identity import custom_login
from flansible.identity.tokens import TokenFile
from flansible.identity.users import RbacFile
from flansible.sealing import Sealer
from flansible.store import LoginLimits, Retention, Store
from flansible.web import routes, serialization, static_files
from flansible.web.audit_throttle import AuditThrottle
from flansible.web.context import Services
from flansible.web.login_throttle import LoginThrottle
from flansible.web.middleware import audit_context, cross_origin, error_handlers, security_headers
from flansible.web.middleware.proxy_headers import Proxies
from flansible.web.openapi import views

log = logging.getLogger(__name__)

# A person, or a load balancer, is waiting for the answer: with the store's own patience a frozen Redis would hold
# every thread.
_REPLY_TIMEOUT_SECONDS = 3.0
_STANDARD_OUTPUT = 1
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class _Json(DefaultJSONProvider):
    """JSON by the one encoder of `answers`; Flask would make a new one for each reply."""

    def response(self, *args: Any, **kwargs: Any) -> Response:
        return Response(serialization.dumps(self._prepare_response_obj(args, kwargs)) + "\n", mimetype=self.mimetype)


class _NoSessions(SessionInterface):
    def open_session(self, app: Flask, request: Any) -> None:
        return None


class _App(Flask):
    """Flask, less what it does for each request and nobody here needs: sessions, and a look whether a function that
    is about to be called is a coroutine."""

    json_provider_class = _Json
    session_interface = _NoSessions()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func


def create_app(settings: Settings) -> Flask:
    """The WSGI app. Raises ConfigurationError when rbac.json is missing or wrong. Opens no connection."""
    app = _App("flansible", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    # Errors of our own making are answered by one handler; let none be swallowed or re-raised on the way.
    app.config["PROPAGATE_EXCEPTIONS"] = False
    broker_app.configure(settings)
    services = _services(settings)
    app.extensions["flansible"] = services
    error_handlers.register(app)
    security_headers.register(app, settings.is_tls)
    audit_context.register(app)
    cross_origin.register(app, settings)
    # Werkzeug would lead `//api` to `/api` at the host that the request names, whoever wrote that name.
    app.url_map.merge_slashes = False
    routes.register(app)
    views.register(app, routes.ROUTES)
    static_files.register(app)
    if settings.proxy_networks:
        app.wsgi_app = Proxies(app.wsgi_app, settings.proxy_networks)  # type: ignore[method-assign]
    _tell_of_start(services)
    return app


def _services(settings: Settings) -> Services:
    audit = Audit(settings.audit_file, settings.secret_key_file, _STANDARD_OUTPUT if settings.audit_stdout else None)

    def tell(path: Path, what: str, is_good: bool) -> None:
        what = f"{path.name} {_digest_of(path, audit)}: {what}"
        audit.note(AuditEvent("configuration", what=what, outcome="in force" if is_good else "refused"))

    store = Store(
        settings.store_url,
        Retention(settings.retention_days, settings.retention_tasks, settings.retention_bytes),
        _REPLY_TIMEOUT_SECONDS,
    )
    most = settings.login_failures
    return Services(
        settings=settings,
        rbac=RbacFile(settings.rbac_file, partial(tell, settings.rbac_file)),
        store=store,
        sealer=Sealer(settings.secret_key_file),
        tokens=TokenFile(settings.token_file, partial(tell, settings.token_file)),
        login_function=custom_login.load(settings.login_function),
        doors=LoginThrottle(store, LoginLimits(of_both=most, of_user=5 * most, of_address=10 * most)),
        audit=audit,
        thrift=AuditThrottle(),
    )


def _digest_of(path: Path, audit: Audit) -> str:
    """By which two versions of a file can be told apart."""
    try:
        return audit.digest(path.read_bytes())
    except (OSError, ConfigurationError):
        return "(unread)"


def _tell_of_start(services: Services) -> None:
    """Raises ConfigurationError when the audit log cannot be had; a full disk may be mended while others read."""
    settings, audit = services.settings, services.audit
    try:
        digests = [
            f"settings {audit.digest(settings.model_dump_json().encode())}",
            f"rbac {_digest_of(settings.rbac_file, audit)}",
        ]
        audit.write(
            AuditEvent("service_start", what=f"flansible {__version__}: {', '.join(digests)}", outcome="in force")
        )
    except AuditUnavailable as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _NO_SPACE:
            raise ConfigurationError([Fault("config", "audit_file", str(error))]) from error
        log.error("%s; nothing can be submitted until then", error)
