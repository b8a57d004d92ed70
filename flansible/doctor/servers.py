"""The doctor's checks of Redis, the history database, the broker and the workers."""

from __future__ import annotations

import socket
from contextlib import closing

from flansible.broker import app as broker_app
from flansible.config import EMBEDDED, Settings
from flansible.doctor import open_services
from flansible.doctor.check import Check, Mark
from flansible.errors import BrokerUnavailable, ConfigurationError, HistoryUnavailable, StoreUnavailable
from flansible.history.database import DAMAGED, Database
from flansible.history.schema import VERSION
from flansible.launcher import embedded_redis
from flansible.store import Store

_CONNECT_SECONDS = 2.0


def redis(settings: Settings) -> list[Check]:
    """Checks each Redis in use: the store's, and the broker's if it is a different one."""
    checks = [_redis_program()] if settings.embeds_redis else []
    keys = {settings.store_url: "CELERY_RESULT_BACKEND"}
    if not settings.broker_url.startswith("amqp"):
        keys.setdefault(settings.broker_url, "CELERY_BROKER_URL")
    for url, key in keys.items():
        checks += _redis_server(url, key, embedded=getattr(settings, key) == EMBEDDED)
        checks += _open("redis", url, key)
    return checks


def _open(subject: str, url: str, key: str) -> list[Check]:
    found = open_services.find_open(url)
    if found is None:
        return []
    return [Check(Mark.WARN if found.is_local else Mark.FAIL, subject, f"{key} {found.found}", found.advice)]


def _redis_program() -> Check:
    program = embedded_redis.find_program()
    if program is None:
        advice = (
            "on Debian: apt-get install redis-server (or valkey-server); or set CELERY_BROKER_URL and "
            "CELERY_RESULT_BACKEND to a Redis you have"
        )
        return Check(Mark.FAIL, "redis", "no redis-server found for `flansible up` to start", advice)
    return Check(Mark.OK, "redis", f"program: {program}")


def _redis_server(url: str, key: str, embedded: bool) -> list[Check]:
    try:
        store = Store(url)
    except ValueError:
        # The message may quote a part of the URL, and a password with it.
        return [Check(Mark.FAIL, "redis", f"the URL in {key} is not valid", f"fix {key}")]
    with closing(store):
        try:
            store.check_writes()
        except StoreUnavailable as error:
            # One that has no space on its disk answers, with an error.
            if embedded and not _accepts(url.partition("://")[2]):
                return [Check(Mark.OK, "redis", "the embedded one is not running; `flansible up` starts it")]
            return [Check(Mark.FAIL, "redis", f"{key}: {error}", f"start that Redis, or fix {key}")]
        try:
            found = store.server_settings()
        except StoreUnavailable as error:
            advice = "check that it keeps its data over a restart and evicts nothing"
            return [Check(Mark.WARN, "redis", f"{key}: its settings cannot be read ({error})", advice)]
    version = Check(Mark.OK, "redis", f"{key}: version {found['redis_version']}")
    return [version, _persistence(found, key), _eviction(found, key)]


def _accepts(path: str) -> bool:
    """Whether something listens on this socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        return probe.connect_ex(path) == 0


def _persistence(found: dict[str, str], key: str) -> Check:
    if found["appendonly"] == "yes":
        return Check(Mark.OK, "redis", f"{key}: keeps an append-only file")
    if found.get("save"):
        return Check(Mark.OK, "redis", f"{key}: keeps snapshots (save {found['save']})")
    advice = "in redis-cli: CONFIG SET appendonly yes, then CONFIG REWRITE"
    if "save" not in found:
        what = "no append-only file, and CONFIG is forbidden: it may or may not keep snapshots"
        return Check(Mark.WARN, "redis", f"{key}: {what}", "check that its provider keeps its data over a restart")
    return Check(Mark.WARN, "redis", f"{key}: keeps nothing: records are lost when it restarts", advice)


def _eviction(found: dict[str, str], key: str) -> Check:
    policy, limit = found["maxmemory-policy"], found["maxmemory"]
    if policy == "noeviction":
        return Check(Mark.OK, "redis", f"{key}: evicts nothing")
    if limit == "0":
        return Check(Mark.OK, "redis", f"{key}: evicts nothing (maxmemory 0)")
    advice = "in redis-cli: CONFIG SET maxmemory-policy noeviction, then CONFIG REWRITE"
    what = f"deletes records above {limit} bytes (maxmemory-policy {policy})"
    return Check(Mark.FAIL, "redis", f"{key}: {what}", advice)


def history(settings: Settings) -> list[Check]:
    """Checks the history database: whether it answers, its version, and each page of an embedded one."""
    url = settings.database_url
    if url is None:
        found = "finished tasks are not archived: Redis is not the embedded one, so several machines may share it"
        advice = "name a database that they share: DATABASE_URL = postgresql+psycopg://user:password@host/name"
        return [Check(Mark.WARN, "history", found, advice)]
    try:
        with closing(Database(url)) as database:
            version, name = database.require_known_version(), database.name
            database.check()
    except ConfigurationError as error:
        return [Check(Mark.FAIL, "history", str(fault), "fix it") for fault in error.faults]
    except HistoryUnavailable as error:
        if settings.DATABASE_URL == EMBEDDED and not settings.data_dir.exists():
            return [Check(Mark.OK, "history", "the embedded database does not exist yet; a worker makes it")]
        advice = "do as it says" if error.reason == DAMAGED else "start that server, or fix DATABASE_URL"
        return [Check(Mark.FAIL, "history", str(error), advice)]
    if version < VERSION:
        return [Check(Mark.OK, "history", f"{name}, version {version}; a worker takes it to version {VERSION}")]
    return [Check(Mark.OK, "history", f"{name}, version {version}")]


def broker(settings: Settings) -> list[Check]:
    url = settings.broker_url
    return (_open("broker", url, "CELERY_BROKER_URL") if url.startswith("amqp") else []) + _broker(settings)


def _broker(settings: Settings) -> list[Check]:
    broker_app.configure(settings)
    try:
        broker_app.check_broker()
        workers = _workers(settings)
    except ValueError:
        what = "the URL in CELERY_BROKER_URL is not valid"
        return [Check(Mark.FAIL, "broker", what, "fix CELERY_BROKER_URL")]
    except BrokerUnavailable as error:
        if settings.CELERY_BROKER_URL == EMBEDDED:
            return [Check(Mark.OK, "broker", "the embedded Redis, which is not running; `flansible up` starts it")]
        return [Check(Mark.FAIL, "broker", str(error), "start it, or fix CELERY_BROKER_URL")]
    return [Check(Mark.OK, "broker", "answers"), *workers]


def _workers(settings: Settings) -> list[Check]:
    """Checks what the workers report, and that one answers. Raises BrokerUnavailable."""
    try:
        with closing(Store(settings.store_url)) as store:
            live = [record for record in store.worker_records() if record.is_live]
    except (StoreUnavailable, ValueError):
        return []  # already reported
    checks = [
        Check(Mark.FAIL, "worker", f"{record.name} cannot run tasks: {record.problem}", "fix that, or stop the worker")
        for record in live
        if record.problem
    ]
    ready = [record.name for record in live if not record.problem]
    name = broker_app.ping_worker(ready) if ready else None
    if name:
        return [*checks, Check(Mark.OK, "worker", f"{name} answers")]
    advice = "start one with `flansible worker`, or the whole service with `flansible up`"
    return checks or [Check(Mark.WARN, "worker", "no worker answers: tasks would stay queued", advice)]
