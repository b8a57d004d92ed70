"""The connection to Redis, how keys are named, and the border at which its errors become ours."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flansible.errors import StoreUnavailable
from flansible.store.scripts import SCRIPTS

_MOST_CONNECTIONS = 2**31  # as many as there are threads; redis-py's own limit, 100, would be an error to those beyond
CONNECT_TIMEOUT_SECONDS = 2.0
REPLY_TIMEOUT_SECONDS = 10.0


@contextmanager
def translated() -> Iterator[None]:
    """Redis' errors become StoreUnavailable."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise StoreUnavailable(f"Redis does not answer: {error}") from error


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def encoded(value: str | int | float | bytes) -> int | float | bytes:
    """Ansible makes half a surrogate pair of a byte that is not UTF-8, in a host's name: the record goes on with it."""
    return value.encode(errors="backslashreplace") if isinstance(value, str) else value


class _Lanes:
    """Connections for scripts, each lent to one caller at a time.

    redis-py's own pool asks for locks, clocks and the state of the socket (a system call) each time it lends one: that
    takes longer than Redis needs for a task's status. What it would find out, a closed connection, the retry finds.
    """

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._pool = pool
        self._idle: deque[Any] = deque()

    def call(self, *command: str | int | float | bytes) -> Any:
        """What Redis answers. Raises redis-py's errors."""
        try:
            lane = self._idle.pop()
        except IndexError:
            lane = self._pool.make_connection()

        def ask() -> Any:
            lane.send_command(*command)
            return lane.read_response()

        try:
            answer = lane.retry.call_with_retry(ask, lambda _: lane.disconnect())
        except redis.ResponseError:  # an answer too
            self._idle.append(lane)
            raise
        except BaseException:
            # Lent again it might take an answer that comes late for its own. It connects anew: the pool counts what it
            # has made, for good, and would make no more.
            lane.disconnect()
            self._idle.append(lane)
            raise
        self._idle.append(lane)
        return answer

    def close(self) -> None:
        while self._idle:
            self._idle.pop().disconnect()


class Connection:
    """One Redis. Opens no connection until first used; safe to share between threads, not across a fork."""

    def __init__(self, url: str, reply_timeout_seconds: float = REPLY_TIMEOUT_SECONDS) -> None:
        """url: redis://, rediss:// or redis+socket:// (Celery's spelling of a Unix socket)."""
        # No silent retries but one, for a connection that went stale: each caller knows better whether to answer 503
        # or to keep its data and try again.
        self._redis: redis.Redis = redis.Redis.from_url(
            url.replace("redis+socket://", "unix://", 1),
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            socket_timeout=reply_timeout_seconds,
            retry=Retry(NoBackoff(), 1),
            health_check_interval=0,
            max_connections=_MOST_CONNECTIONS,
        )
        self._lanes = _Lanes(self._redis.connection_pool)

    def close(self) -> None:
        """Give the connections back."""
        self._lanes.close()
        self._redis.close()

    def ping(self) -> None:
        """Raises StoreUnavailable when Redis does not answer."""
        with translated():
            self._redis.ping()

    def server_settings(self) -> dict[str, str]:
        """What decides whether records survive: redis_version, appendonly, maxmemory, maxmemory-policy, save.

        A managed Redis may forbid CONFIG; then `save` is missing, which INFO does not tell.
        """
        with translated():
            info = self._redis.info()
            found = {
                "redis_version": str(info.get("redis_version", "")),
                "appendonly": "yes" if info.get("aof_enabled") else "no",
                "maxmemory": str(info.get("maxmemory", 0)),
                "maxmemory-policy": str(info.get("maxmemory_policy", "")),
            }
            try:
                found["save"] = str(self._redis.config_get("save").get("save", ""))
            except redis.ResponseError:
                return found
            return found

    def _run(self, name: str, keys: Sequence[str], *args: str | int | float | bytes) -> Any:
        """Runs the script `lua/<name>.lua` and returns its reply."""
        script = SCRIPTS[name]
        values = [len(keys), *[encoded(value) for value in (*keys, *args)]]
        with translated():
            try:
                return self._lanes.call("EVALSHA", script.digest, *values)
            except redis.exceptions.NoScriptError:
                return self._lanes.call("EVAL", script.source, *values)  # which registers it
