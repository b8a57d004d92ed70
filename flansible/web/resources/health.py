"""The health of the service, part by part. Public; details only for admin."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from flask import Response, jsonify
from flask_restful import Resource

from flansible import __version__
from flansible.authorization import isolation
from flansible.broker import app as broker_app
from flansible.errors import BrokerUnavailable, StoreUnavailable
from flansible.models import DEFAULT_QUEUE, ForkServerCounts, Health, PartHealth, QueueWorkers
from flansible.store import Store
from flansible.web.context import WebContext, web_context
from flansible.web.login.authentication import optional_user
from flansible.web.parsing import NoFields, parse_query
from flansible.web.streaming.thread_slots import Slots

# How long a check's result is cached, so that frequent polls of a load balancer do not load the broker. A failure is
# cached only for the requests that waited for the same check: the worker may have just started.
_CACHE_SECONDS = {True: 1.0, False: 0.05}

# A check takes seconds where something does not answer. Anyone may ask: in each web process so many threads, a quarter
# of them, wait for one; who asks meanwhile gets what was known a moment ago.
_WAITING_PART = 4
_KNOWN_SECONDS = 5.0

_locks = {"broker": threading.Lock(), "workers": threading.Lock()}
_waiting = Slots()
_cache: dict[str, tuple[float, PartHealth]] = {}


class HealthResource(Resource):  # type: ignore[misc]
    """The health of the service, for people, load balancers and `flansible up`."""

    def get(self) -> Response:
        """Check the health of the service"""
        parse_query(NoFields)
        with _waiting.hold(max(1, web_context().settings.web_threads // _WAITING_PART)) as may_wait:
            parts = _parts(web_context(), may_wait)
        if not all(parts[name].ok for name in ("store", "broker", "workers")):
            status = "unavailable"
        else:
            status = "ok" if all(part.ok for part in parts.values()) else "degraded"
        user = optional_user() if parts["rbac"].ok or parts["store"].ok else None
        if user is None or not user.is_admin:
            parts = {name: PartHealth(ok=part.ok, detail=_PUBLIC[part.ok]) for name, part in parts.items()}
        is_shown = user is not None and user.is_admin and parts["store"].ok
        counts = _fork_servers(web_context().store) if is_shown else []
        queues = _queues(web_context()) if is_shown else []
        health = Health(
            status=status,  # type: ignore[arg-type]
            version=__version__,
            parts=parts,
            fork_servers=counts,
            queues=queues,
        )
        response = jsonify(health.model_dump())
        response.status_code = 503 if status == "unavailable" else 200
        if status == "unavailable":
            response.headers["Retry-After"] = "5"
        response.headers["Cache-Control"] = "no-store"
        return response


_NO_WORKER = "no worker answers; start one with `flansible worker`"
_PUBLIC = {True: "answers", False: "has a problem; admin sees the details"}


def _parts(context: WebContext, may_wait: bool) -> dict[str, PartHealth]:
    store = _store(context)
    if not store.ok and context.settings.broker_url == context.settings.store_url:
        broker = PartHealth(
            ok=False, detail="it is the Redis of the store"
        )  # a second check would wait for a second timeout
    else:
        broker = _cached("broker", _broker, may_wait)
    away = next((name for name, part in (("store", store), ("broker", broker)) if not part.ok), None)
    if away:
        workers = PartHealth(ok=False, detail=f"not checked: the {away} has a problem")
    else:
        workers = _cached("workers", partial(_workers, context.store), may_wait)
    fault = context.rbac.users() and context.rbac.fault
    rbac = PartHealth(ok=not fault, detail=f"the last valid version is in force: {fault}" if fault else "is in force")
    parts = {"store": store, "broker": broker, "workers": workers, "rbac": rbac}
    return parts | {"isolation": _isolation(context.settings.isolation), "history": _history(context)}


_NO_DATABASE = (
    "finished tasks are not archived, and are deleted after retention_days: Redis may be shared by several machines, "
    "and no database is named; set DATABASE_URL = postgresql+psycopg://..."
)


def _history(context: WebContext) -> PartHealth:
    """Whether finished tasks move to the history database, and how many wait for it."""
    store = context.store
    if store.archive is None:
        return PartHealth(ok=False, detail=_NO_DATABASE)
    try:
        waiting = f"{store.finished_count()} finished tasks wait in Redis"
        report = store.archiver_report()
        problem = report.problem or store.archive.problem()
    except StoreUnavailable as error:
        return PartHealth(ok=False, detail=f"not checked: {error}")
    if problem:
        return PartHealth(ok=False, detail=f"{problem}; {waiting}")
    return PartHealth(ok=True, detail=f"{store.archive.description()}; {waiting}")


def _isolation(mode: isolation.Mode) -> PartHealth:
    found = isolation.of(mode)
    if not found.is_missing:
        return PartHealth(ok=True, detail=str(found))
    what = f"runs of users other than admin that could reach this machine are refused ({found}); {isolation.ADVICE}"
    return PartHealth(ok=False, detail=what)


def _store(context: WebContext) -> PartHealth:
    try:
        context.store.check_writes()
    except StoreUnavailable as error:
        return PartHealth(ok=False, detail=str(error))
    return PartHealth(ok=True, detail="Redis takes writes")


def _broker() -> PartHealth:
    try:
        broker_app.check_broker()
    except BrokerUnavailable as error:
        return PartHealth(ok=False, detail=str(error))
    return PartHealth(ok=True, detail="takes messages")


def _workers(store: Store) -> PartHealth:
    """Pings the workers that report that they can run tasks; names those that cannot."""
    try:
        live = [record for record in store.worker_records() if record.is_live]
        ready = [record.name for record in live if not record.problem]
        name = broker_app.ping_worker(ready) if ready else None
    except (StoreUnavailable, BrokerUnavailable) as error:
        return PartHealth(ok=False, detail=str(error))
    found = [f"{name} answers"] if name else []
    found += [f"{record.name} cannot run tasks: {record.problem}" for record in live if record.problem]
    return PartHealth(ok=name is not None, detail="; ".join(found) or _NO_WORKER)


def _fork_servers(store: Store) -> list[ForkServerCounts]:
    try:
        return [record.counts for record in store.worker_records() if record.is_live and record.counts]
    except StoreUnavailable:
        return []


def _queues(context: WebContext) -> list[QueueWorkers]:
    """Lists the queues that anybody may use or serves, each with its live workers."""
    try:
        live = [record for record in context.store.worker_records() if record.is_live]
    except StoreUnavailable:
        return []
    named = {name for user in context.rbac.users().values() for entry in user.entries for name, _ in entry.queues}
    names = {DEFAULT_QUEUE, *named, *(name for record in live for name in record.queues)}
    return [
        QueueWorkers(queue=name, workers=[record.name for record in live if name in record.queues])
        for name in sorted(names)
    ]


def _cached(name: str, check: Callable[[], PartHealth], may_wait: bool) -> PartHealth:
    if not may_wait:
        checked_at, part = _cache.get(name, (0.0, None))
        is_known = part is not None and time.monotonic() - checked_at < _KNOWN_SECONDS
        return part if part and is_known else PartHealth(ok=False, detail="is being checked for others; try again")
    with _locks[name]:
        checked_at, part = _cache.get(name, (0.0, None))
        if part is None or time.monotonic() - checked_at > _CACHE_SECONDS[part.ok]:
            part = check()
            _cache[name] = (time.monotonic(), part)
        return part
