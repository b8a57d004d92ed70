"""The connection to Redis: timeouts, scripts, and the translation of its errors into ours."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flansible.errors import StoreUnavailable
from flansible.store.keys import CHECKED
from flansible.store.redis_errors import REDIS_ERRORS, redis_reason
from flansible.store.scripts import SCRIPTS, LuaScript

_MAX_CONNECTIONS = 2**31  # each thread needs one; with redis-py's own limit, 100, the others would fail
CONNECT_TIMEOUT_SECONDS = 2.0
REPLY_TIMEOUT_SECONDS = 10.0
_CHECKED_SECONDS = 60
_ERRORS: tuple[type[Exception], ...] = (*REDIS_ERRORS, OSError)


@contextmanager
def translated() -> Iterator[None]:
    """Turns Redis' errors into StoreUnavailable."""
    try:
        yield
    except _ERRORS as error:
        reason = redis_reason(error)
        raise StoreUnavailable(f"Redis {reason}: {error}", _is_away(error), reason) from error


def _is_away(error: BaseException) -> bool:
    """Whether nothing listens at the store's address, or what does is loading its file. Silence does not count: a Redis
    that cannot be reached from here may be serving others."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ConnectionRefusedError, FileNotFoundError, redis.exceptions.BusyLoadingError)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def text(value: Any) -> str:
    """Decodes a value of a reply."""
    return value.decode() if isinstance(value, bytes) else str(value)


def encoded(value: str | int | float | bytes) -> int | float | bytes:
    """Encodes an argument. Ansible decodes a byte of a host's name that is not UTF-8 as half a surrogate pair, which
    the record keeps as a backslash escape."""
    return value.encode(errors="backslashreplace") if isinstance(value, str) else value


class _IdleConnections:
    """Gives out connections for scripts, each to one caller at a time, without the checks of redis-py's own pool.

    That pool takes locks, reads clocks and checks the socket's state each time it gives out a connection. Here
    a closed connection is found by using it, and retried once. Measured in November 2026 with redis-py 8.1 on two busy
    cores, 16 threads, a Unix socket, in turn over nine rounds: a status poll takes 37 us of CPU this way, 81 us with
    `redis.ConnectionPool` or `redis.BlockingConnectionPool`; an append 34 us, and 70 us.
    """

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._pool = pool
        self._idle: deque[Any] = deque()

    def call(self, *command: str | int | float | bytes) -> Any:
        """Sends a command and returns its reply. Raises redis-py's errors."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._pool.make_connection()

        def request() -> Any:
            connection.send_command(*command)
            return connection.read_response()

        try:
            return connection.retry.call_with_retry(request, lambda _: connection.disconnect())
        except (redis.ResponseError, UnicodeEncodeError):  # a reply as well, or nothing was sent
            raise
        except BaseException:
            # Disconnected, because the next caller might otherwise read a late reply to this command. It is kept: the
            # pool counts the connections that it ever made, and would stop making new ones.
            connection.disconnect()
            raise
        finally:
            self._idle.append(connection)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().disconnect()


class Connection:
    """Connects to one Redis, at the first use. Threads may share it, processes after a fork may not."""

    def __init__(self, url: str, reply_timeout_seconds: float = REPLY_TIMEOUT_SECONDS) -> None:
        """url: redis://, rediss:// or redis+socket:// (Celery's spelling of a Unix socket)."""
        # One silent retry, for a connection that Redis closed while it was idle. Whether to try again later or to
        # answer 503 is for each caller to decide.
        self._redis: redis.Redis = redis.Redis.from_url(
            url.replace("redis+socket://", "unix://", 1),
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            socket_timeout=reply_timeout_seconds,
            retry=Retry(NoBackoff(), 1),
            health_check_interval=0,
            max_connections=_MAX_CONNECTIONS,
        )
        self._connections = _IdleConnections(self._redis.connection_pool)

    def close(self) -> None:
        """Closes all connections."""
        self._connections.close()
        self._redis.close()

    def check_writes(self) -> None:
        """Checks that Redis runs scripts and takes what they write. Raises StoreUnavailable."""
        self._run("check_writes", [CHECKED], _CHECKED_SECONDS)

    def server_settings(self) -> dict[str, str]:
        """Reads the settings that decide whether records survive: redis_version, appendonly, maxmemory,
        maxmemory-policy, save.

        A managed Redis may forbid CONFIG. Then `save` is missing, because INFO does not contain it.
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
        with translated():
            try:
                return self._evaluate(script, len(keys), *keys, *args)
            except UnicodeEncodeError:
                return self._evaluate(script, len(keys), *map(encoded, (*keys, *args)))

    def _evaluate(self, script: LuaScript, *args: str | int | float | bytes) -> Any:
        try:
            return self._connections.call("EVALSHA", script.digest, *args)
        except redis.exceptions.NoScriptError:
            return self._connections.call("EVAL", script.source, *args)  # which registers it
