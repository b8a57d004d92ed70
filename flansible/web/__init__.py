"""The HTTP API: checks requests against rbac.json, records and enqueues tasks, and reads records back.

`create_app` is the factory; `ROUTES` (flansible.web.routes) is the one list of URLs, from which flask-restful serves
and both API documents are made. Runs in gunicorn's processes; never imports the worker or Ansible. May import
`authorization`, `identity`, `audit`, `broker`, `playbooks`, `sealing`, `history`, `store`, `config` and what is below.
"""

from __future__ import annotations

import errno
import logging
from functools import partial
from pathlib import Path

from flask import Flask
from flask.json.provider import DefaultJSONProvider

from flansible import __version__
from flansible.audit.log import Audit, AuditEvent
from flansible.audit.throttle import AuditThrottle
from flansible.broker import app as broker_app
from flansible.config import Settings
from flansible.definitions import secret_source
from flansible.definitions.definition_store import Definitions
from flansible.definitions.stored_credentials import Credentials
from flansible.errors import AuditUnavailable, ConfigurationError, Fault, HistoryUnavailable
from flansible.history import upgrade
from flansible.history.archive import Archive
from flansible.history.definition_rows import DefinitionRows
from flansible.history.delivery_rows import DeliveryRows
from flansible.history.hook_call_rows import HookCallRows
from flansible.history.opening import open_records
from flansible.history.schedule_rows import ScheduleRows
from flansible.identity import custom_login
from flansible.identity.tokens import TokenFile
from flansible.identity.users import RbacFile
from flansible.sealing import Sealer
from flansible.store import LoginLimits, LoginThrottle
from flansible.web import routes, static_files
from flansible.web.context import WebContext
from flansible.web.failed_submissions import FailedSubmissions
from flansible.web.middleware import audit_context, cross_origin, error_handlers, request_metrics, security_headers
from flansible.web.middleware.proxy_headers import ProxyHeaders
from flansible.web.openapi import views
from flansible.web.request_counts import RequestCounts

log = logging.getLogger(__name__)

# A person or a load balancer waits for the reply: with the store's default timeout a frozen Redis would hold every
# thread.
_REPLY_TIMEOUT_SECONDS = 3.0
_STANDARD_OUTPUT = 1
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def create_app(settings: Settings) -> Flask:
    """Builds the WSGI app; opens no connection. Raises ConfigurationError when rbac.json is missing or wrong."""
    app = Flask("flansible", static_folder=None)
    assert isinstance(app.json, DefaultJSONProvider)
    app.json.sort_keys = False  # hosts with failures come first
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    # One handler replies to every error; Flask must neither swallow nor re-raise any before it.
    app.config["PROPAGATE_EXCEPTIONS"] = False
    broker_app.configure(settings)
    context = _build_context(settings)
    app.extensions["flansible"] = context
    error_handlers.register(app)
    security_headers.register(app, settings.is_tls)
    audit_context.register(app)
    cross_origin.register(app, settings)
    request_metrics.register(app)
    # Werkzeug would redirect `//api` to `/api` on the host that the request names, which may be any.
    app.url_map.merge_slashes = False
    routes.register(app)
    views.register(app, routes.ROUTES)
    static_files.register(app)
    if settings.proxy_networks:
        app.wsgi_app = ProxyHeaders(app.wsgi_app, settings.proxy_networks)  # type: ignore[method-assign]
    _audit_start(context)
    return app


def _build_context(settings: Settings) -> WebContext:
    audit = Audit(settings.audit_file, settings.secret_key_file, _STANDARD_OUTPUT if settings.audit_stdout else None)

    def audit_change(path: Path, what: str, is_good: bool) -> None:
        what = f"{path.name} {_file_digest(path, audit)}: {what}"
        audit.note(AuditEvent("configuration", what=what, outcome="in force" if is_good else "refused"))

    store = open_records(settings, _REPLY_TIMEOUT_SECONDS)

    sealer = Sealer(settings.secret_key_file)
    definitions = _definitions(store.archive, sealer)
    secret_function = secret_source.load(settings.secret_function)
    return WebContext(
        settings=settings,
        rbac=RbacFile(settings.rbac_file, partial(audit_change, settings.rbac_file), settings),
        store=store,
        failed_submissions=FailedSubmissions(store),
        sealer=sealer,
        tokens=TokenFile(settings.token_file, partial(audit_change, settings.token_file)),
        login_function=custom_login.load(settings.login_function),
        login_throttle=LoginThrottle(store, LoginLimits.for_pair(settings.login_failures)),
        audit=audit,
        audit_throttle=AuditThrottle(),
        definitions=definitions,
        credentials=None if definitions is None else Credentials(definitions, secret_function),
        request_counts=RequestCounts(store) if settings.metrics else None,
        schedules=None if store.archive is None else ScheduleRows(store.archive.database),
        deliveries=DeliveryRows(store.archive.database) if store.archive else None,
        hook_calls=HookCallRows(store.archive.database) if store.archive else None,
    )


def _definitions(archive: Archive | None, sealer: Sealer) -> Definitions | None:
    """Returns the definitions of this service; None without a database."""
    if archive is None:
        return None
    database = archive.database

    def prepare() -> None:
        try:
            upgrade.upgrade(database, database.url)
        except ConfigurationError as error:
            raise HistoryUnavailable(str(error), "is of a later version of Flansible") from error

    return Definitions(DefinitionRows(database), sealer, prepare)


def _file_digest(path: Path, audit: Audit) -> str:
    """Returns a digest that differs between versions of a file."""
    try:
        return audit.digest(path.read_bytes())
    except (OSError, ConfigurationError):
        return "(unread)"


def _audit_start(context: WebContext) -> None:
    """Writes the audit line of a start. Raises ConfigurationError when the log cannot be written.

    A full disk does not stop the start: it may be mended while users read.
    """
    settings, audit = context.settings, context.audit
    try:
        digests = [
            f"settings {audit.digest(settings.model_dump_json().encode())}",
            f"rbac {_file_digest(settings.rbac_file, audit)}",
        ]
        audit.write(
            AuditEvent("service_start", what=f"flansible {__version__}: {', '.join(digests)}", outcome="in force")
        )
    except AuditUnavailable as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _NO_SPACE:
            raise ConfigurationError([Fault("config", "audit_file", str(error))]) from error
        log.error("%s; nothing can be submitted until then", error)
