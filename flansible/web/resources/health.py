"""Whether the service can do its work, part by part. Public; details only for admin."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flask import Response, jsonify
from flask_restful import Resource

from flansible import __version__
from flansible.authorization import isolation
from flansible.broker import app as broker_app
from flansible.errors import BrokerUnavailable, StoreUnavailable
from flansible.models import Health, PartHealth
from flansible.web.context import WebContext, web_context
from flansible.web.login.authentication import optional_user
from flansible.web.parsing import NoFields, parse_query

# A worker's answer is good for this long: a load balancer that asks often must not load the broker. That there was none
# is good for those who have waited for it, and hardly longer: it may have just come.
_REMEMBER_SECONDS = {True: 1.0, False: 0.05}

_locks = {"broker": threading.Lock(), "workers": threading.Lock()}
_remembered: dict[str, tuple[float, PartHealth]] = {}


class HealthResource(Resource):  # type: ignore[misc]
    """The state of the service, for people, load balancers and `flansible up`."""

    def get(self) -> Response:
        """Ask whether the service can do its work"""
        parse_query(NoFields)
        parts = _parts(web_context())
        if not all(parts[name].ok for name in ("store", "broker", "workers")):
            status = "unavailable"
        else:
            status = "ok" if parts["rbac"].ok and parts["isolation"].ok else "degraded"
        user = optional_user() if parts["rbac"].ok or parts["store"].ok else None
        if user is None or not user.is_admin:
            parts = {name: PartHealth(ok=part.ok, detail=_PUBLIC[part.ok]) for name, part in parts.items()}
        health = Health(status=status, version=__version__, parts=parts)  # type: ignore[arg-type]
        response = jsonify(health.model_dump())
        response.status_code = 503 if status == "unavailable" else 200
        if status == "unavailable":
            response.headers["Retry-After"] = "5"
        response.headers["Cache-Control"] = "no-store"
        return response


_PUBLIC = {True: "answers", False: "wants attention; admin sees the details"}


def _parts(found: WebContext) -> dict[str, PartHealth]:
    store = _store(found)
    if not store.ok and found.settings.broker_url == found.settings.store_url:
        broker = PartHealth(ok=False, detail="it is the Redis of the store")  # to find that out again takes its time
    else:
        broker = _remember("broker", _broker)
    workers = _remember("workers", _workers) if broker.ok else PartHealth(ok=False, detail="the broker is away")
    fault = found.rbac.users() and found.rbac.fault
    rbac = PartHealth(ok=not fault, detail=f"the last good version is in force: {fault}" if fault else "is in force")
    parts = {"store": store, "broker": broker, "workers": workers, "rbac": rbac}
    return parts | {"isolation": _isolation(found.settings.isolation)}


def _isolation(mode: isolation.Mode) -> PartHealth:
    found = isolation.of(mode)
    if not found.is_missing:
        return PartHealth(ok=True, detail=str(found))
    what = f"runs of users other than admin that could reach this machine are refused ({found}); {isolation.ADVICE}"
    return PartHealth(ok=False, detail=what)


def _store(found: WebContext) -> PartHealth:
    try:
        found.store.ping()
    except StoreUnavailable as error:
        return PartHealth(ok=False, detail=str(error))
    return PartHealth(ok=True, detail="Redis answers")


def _broker() -> PartHealth:
    try:
        broker_app.ping_broker()
    except BrokerUnavailable as error:
        return PartHealth(ok=False, detail=str(error))
    return PartHealth(ok=True, detail="takes connections")


def _workers() -> PartHealth:
    try:
        name = broker_app.ping_worker()
    except BrokerUnavailable as error:
        return PartHealth(ok=False, detail=str(error))
    if name is None:
        return PartHealth(ok=False, detail="no worker answers; start one with `flansible worker`")
    return PartHealth(ok=True, detail=f"{name} answers")


def _remember(name: str, ask: Callable[[], PartHealth]) -> PartHealth:
    with _locks[name]:
        asked_at, part = _remembered.get(name, (0.0, None))
        if part is None or time.monotonic() - asked_at > _REMEMBER_SECONDS[part.ok]:
            part = ask()
            _remembered[name] = (time.monotonic(), part)
        return part
