"""The HTTP side: checks a request against rbac.json, records and enqueues it, and reads records back.

`create_app` is the factory; `ROUTES` (flansible.web.routes) is the one list of URLs, read by flask-restful and by both
kinds of API documentation. Runs in gunicorn's processes; never imports the worker or Ansible.
"""

from __future__ import annotations

from flask import Flask, Response

from flansible import celery_app
from flansible.config import Settings
from flansible.rbac import RbacFile
from flansible.sealing import Sealer
from flansible.store import Retention, Store
from flansible.web import docs, problems, routes
from flansible.web.services import Services

# A person, or a load balancer, is waiting for the answer: with the store's own patience a frozen Redis would hold
# every thread.
_REPLY_TIMEOUT_SECONDS = 3.0


def create_app(settings: Settings) -> Flask:
    """The WSGI app. Raises ConfigurationError when rbac.json is missing or wrong. Opens no connection."""
    app = Flask("flansible", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    # Errors of our own making are answered by one handler; let none be swallowed or re-raised on the way.
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.json.ensure_ascii = True  # type: ignore[attr-defined]  # what is not UTF-8 travels as an escape
    app.json.sort_keys = False  # type: ignore[attr-defined]  # hosts with failures come first: order says something
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
    app.after_request(_no_guessing)
    routes.register(app)
    docs.register(app)
    return app


def _no_guessing(response: Response) -> Response:
    """What a task prints is text to every browser, and no cache keeps an answer that is true for a moment only."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")
    return response
