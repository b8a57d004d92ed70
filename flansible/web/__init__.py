"""The HTTP side: checks a request against rbac.json, records and enqueues it, and reads records back.

`create_app` is the factory; `ROUTES` (flansible.web.routes) is the one list of URLs, read by flask-restful and by both
kinds of API documentation. Runs in gunicorn's processes; never imports the worker or Ansible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, Response
from flask.json.provider import DefaultJSONProvider
from flask.sessions import SessionInterface

from flansible import celery_app
from flansible.config import Settings
from flansible.rbac import RbacFile
from flansible.sealing import Sealer
from flansible.store import Retention, Store
from flansible.web import answers, docs, other_sites, problems, routes, safe_headers
from flansible.web.proxies import Proxies
from flansible.web.services import Services

# A person, or a load balancer, is waiting for the answer: with the store's own patience a frozen Redis would hold
# every thread.
_REPLY_TIMEOUT_SECONDS = 3.0


class _Json(DefaultJSONProvider):
    """JSON by the one encoder of `answers`; Flask would make a new one for each reply."""

    def response(self, *args: Any, **kwargs: Any) -> Response:
        return Response(answers.dumps(self._prepare_response_obj(args, kwargs)) + "\n", mimetype=self.mimetype)


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
    celery_app.configure(settings)
    services = Services(
        settings,
        RbacFile(settings.rbac_file),
        Store(
            settings.store_url,
            Retention(settings.retention_days, settings.retention_tasks, settings.retention_bytes),
            _REPLY_TIMEOUT_SECONDS,
        ),
        Sealer(settings.secret_key_file),
    )
    app.extensions["flansible"] = services
    problems.register(app)
    safe_headers.register(app, settings.is_tls)
    other_sites.register(app, settings)
    # Werkzeug would lead `//api` to `/api` at the host that the request names, whoever wrote that name.
    app.url_map.merge_slashes = False
    routes.register(app)
    docs.register(app)
    if settings.proxy_networks:
        app.wsgi_app = Proxies(app.wsgi_app, settings.proxy_networks)  # type: ignore[method-assign]
    return app
