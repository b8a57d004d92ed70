"""The only module that speaks Redis: task records, their output and events, and the indexes that list them.

| key                                 | type   | written by     | holds                                | expiry    |
|-------------------------------------|--------|----------------|--------------------------------------|-----------|
| flansible:task:<id>                 | hash   | web, worker    | the record: state, times, exit code  | retention |
| flansible:task:<id>:run             | string | web            | the AuthorizedRun as JSON            | retention |
| flansible:task:<id>:secrets         | string | web            | sealed secrets; gone once read       | read once |
| flansible:task:<id>:output          | string | worker         | output bytes, written at an offset   | retention |
| flansible:task:<id>:colours         | string | worker         | 16 bytes a colour: offset, SGR code  | retention |
| flansible:task:<id>:events          | stream | worker         | events; the entry id is `<seq>-0`    | retention |
| flansible:sequence                  | string | web            | counter of tasks; orders the indexes | none      |
| flansible:tasks                     | zset   | web            | every task id by sequence            | pruned    |
| flansible:tasks:user:<user>         | zset   | web            | a user's task ids                    | pruned    |
| flansible:tasks:state:<state>       | zset   | every move     | task ids in a state                  | pruned    |
| flansible:tasks:user:<user>:<state> | zset   | every move     | a user's task ids in a state         | pruned    |
| flansible:expiring                  | zset   | the final move | final task ids by when they expire   | pruned    |
| flansible:leases                    | zset   | worker         | running task ids by when they lapse  | pruned    |

retention: set when the task becomes final. pruned: entries go when their task has expired.

Every step that decides something is one Lua script, so two processes can never both win. Redis' errors become
StoreUnavailable here and nowhere else. Called by web (any thread) and by supervisors in the worker.
"""

from __future__ import annotations

import json
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flansible import scripts
from flansible.errors import IllegalMove, StoreUnavailable
from flansible.models import STATUS_WORDS, AuthorizedRun, State, TaskStatus

PREFIX = "flansible:"
CONNECT_TIMEOUT_SECONDS = 2.0
REPLY_TIMEOUT_SECONDS = 10.0
LEASE_SECONDS = 10
_EVENT_PAGE = 500
_COLOUR = struct.Struct(">Q8s")  # the longest code Ansible makes is 38;5;255

# The legal moves; the scripts enforce them.
MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELED, State.TIMED_OUT, State.LOST, State.ERROR}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.CANCELED, State.TIMED_OUT, State.LOST, State.ERROR}),
}

_STATUS_FIELDS = (
    "state",
    "description",
    "returncode",
    "user",
    "kind",
    "summary",
    "submitted_at",
    "started_at",
    "finished_at",
)


@dataclass(frozen=True)
class TaskPage:
    """One page of the list; next_before continues it, None when this is the last."""

    tasks: tuple[TaskStatus, ...]
    next_before: int | None


@dataclass(frozen=True)
class ColourMark:
    """From `offset` (plain bytes of output) on, text has the colour of this SGR code; "0" ends a colour."""

    offset: int
    code: str


@dataclass(frozen=True)
class Batch:
    """New output and events of a run: where they begin, so that storing them twice changes nothing.

    output_offset: bytes before `output`; first_seq: number of the first event, counting from 1; events: JSON texts;
    first_colour: colour marks before `colours`.
    """

    output_offset: int
    output: bytes
    first_seq: int
    events: tuple[str, ...]
    first_colour: int = 0
    colours: tuple[ColourMark, ...] = ()


def now() -> str:
    """This moment as RFC 3339 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise StoreUnavailable(f"Redis does not answer: {error}") from error


class Store:
    """Records in one Redis. Opens no connection until first used; safe to share between threads, not across a fork."""

    def __init__(self, url: str, retention_days: int = 30) -> None:
        """url: redis://, rediss:// or redis+socket:// (Celery's spelling of a Unix socket)."""
        self._retention_seconds = retention_days * 86400
        # No silent retries: each caller knows better whether to answer 503 or to keep its data and try again.
        self._redis: redis.Redis = redis.Redis.from_url(
            url.replace("redis+socket://", "unix://", 1),
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            socket_timeout=REPLY_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),
            health_check_interval=0,
        )
        self._submit = self._redis.register_script(scripts.SUBMIT)
        self._move = self._redis.register_script(scripts.MOVE)
        self._append = self._redis.register_script(scripts.APPEND)
        self._discard = self._redis.register_script(scripts.DISCARD)
        self._prune = self._redis.register_script(scripts.PRUNE)
        self._renew = self._redis.register_script(scripts.RENEW)
        self._lapsed = self._redis.register_script(scripts.LAPSED)
        self._colours = self._redis.register_script(scripts.COLOURS)
        self._ask_to_cancel = self._redis.register_script(scripts.ASK_TO_CANCEL)

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()

    def ping(self) -> None:
        """Raises StoreUnavailable when Redis does not answer."""
        with _translated():
            self._redis.ping()

    def server_settings(self) -> dict[str, str]:
        """What decides whether records survive: redis_version, appendonly, maxmemory, maxmemory-policy, save.

        A managed Redis may forbid CONFIG; then `save` is missing, which INFO does not tell.
        """
        with _translated():
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

    def submit(self, task_id: str, run: AuthorizedRun, sealed_secrets: bytes = b"") -> None:
        """Record a task as queued. Recording it twice changes nothing."""
        text = run.model_dump_json()
        args: list[str | bytes] = [task_id, run.user, text, now(), run.kind, run.summary, "waiting for a worker"]
        args.append(sealed_secrets)
        with _translated():
            self._submit(args=args)

    def discard(self, task_id: str) -> None:
        """Forget a task that could not be enqueued; one that a worker has claimed meanwhile stays."""
        with _translated():
            self._discard(args=[task_id])

    def claim(self, task_id: str, worker: str, token: str | None = None) -> AuthorizedRun | None:
        """Move a queued task to running and give its run; None when it is not queued: another has it, or it is over.

        token: who claims. The same claim made again, because its answer was lost, is answered as it was.
        """
        token = token or uuid.uuid4().hex
        fields = {"started_at": now(), "worker": worker, "description": f"running on {worker}", "claim": token}
        try:
            self._go(task_id, State.RUNNING, fields, lease=str(LEASE_SECONDS))
        except IllegalMove:
            with _translated():
                if _text(self._redis.hget(_key(task_id), "claim")) != token:
                    return None
        with _translated():
            text = self._redis.get(_key(task_id, "run"))
        return AuthorizedRun.model_validate_json(_text(text))

    def renew_leases(self, task_ids: list[str]) -> None:
        """Say that these runs are still supervised; within LEASE_SECONDS it must be said again."""
        with _translated():
            self._renew(args=[LEASE_SECONDS, *task_ids])

    def lapsed_leases(self) -> list[str]:
        """Running tasks that nobody has spoken for in time; at most 100."""
        with _translated():
            found: Any = self._lapsed(args=[])
        return [_text(task_id) for task_id in found]

    def lose(self, task_id: str) -> None:
        """Make a task whose lease has lapsed final. Raises IllegalMove when it is spoken for again, or over."""
        with _translated():
            worker = self._redis.hget(_key(task_id), "worker")
        description = f"the worker {_text(worker)} died, or lost its connection, while it ran"
        self._go(task_id, State.LOST, {"finished_at": now(), "description": description}, lease="lapsed")

    def oldest_queued(self, limit: int) -> list[TaskStatus]:
        """The tasks that have waited longest, oldest first."""
        with _translated():
            index: Any = self._redis.zrange(_index(None, State.QUEUED), 0, limit - 1)
        return self._load([_text(task_id) for task_id in index])

    def take_secrets(self, task_id: str) -> bytes | None:
        """The sealed secrets of a task, once: afterwards they are gone. For the one that claimed it."""
        # Not GETDEL: a lost answer would be lost secrets.
        with _translated():
            sealed: Any = self._redis.get(_key(task_id, "secrets"))
        try:
            with _translated():
                self._redis.delete(_key(task_id, "secrets"))
        except StoreUnavailable:
            pass  # `settle` deletes what is left
        return bytes(sealed) if sealed else None

    def settle(self, task_id: str, state: State, description: str, returncode: int | None) -> None:
        """Make the task final. Everything stored of it expires after the retention. Raises IllegalMove."""
        fields: dict[str, str | int] = {"finished_at": now(), "description": description}
        if returncode is not None:
            fields["returncode"] = returncode
        self._go(task_id, state, fields)
        with _translated():
            self._prune(args=[int(time.time()), 100])

    def cancel(self, task_id: str, user: str) -> State | None:
        """Cancel a queued task at once, or ask the worker to end a running one; its state now, None if unknown.

        RUNNING means that the worker will see the request within `Cancellations`' interval. Asking twice is harmless.
        """
        fields = {"finished_at": now(), "description": f"canceled by {user} before it started"}
        try:
            self._go(task_id, State.CANCELED, fields, only_from=State.QUEUED)
            return State.CANCELED
        except IllegalMove:
            with _translated():
                state = self._ask_to_cancel(args=[task_id, user])
            return State(_text(state)) if state else None

    def cancel_requests(self, task_ids: list[str]) -> dict[str, str]:
        """Of these tasks, those that someone wants ended: id to who. One round trip."""
        with _translated():
            pipeline = self._redis.pipeline(transaction=False)
            for task_id in task_ids:
                pipeline.hget(_key(task_id), "cancel_by")
            found = pipeline.execute()
        return {task_id: _text(user) for task_id, user in zip(task_ids, found, strict=True) if user}

    def append(self, task_id: str, batch: Batch) -> State | None:
        """Store new output and events in one round trip, while the task is running.

        Returns the task's state: another than running means that nothing was stored; None, that the record is gone.
        """
        colours = b"".join(_COLOUR.pack(mark.offset, mark.code.encode()) for mark in batch.colours)
        args: list[str | int | bytes] = [task_id, batch.output_offset, batch.output]
        args += [batch.first_colour * _COLOUR.size, colours, batch.first_seq, *batch.events]
        with _translated():
            state = self._append(args=args)
        return State(_text(state)) if state else None

    def task(self, task_id: str) -> TaskStatus | None:
        """One task, in one round trip."""
        with _translated():
            values = self._redis.hmget(_key(task_id), list(_STATUS_FIELDS))
        return _stored(task_id, values)

    def tasks(self, user: str | None, state: State | None, before: int | None, limit: int) -> TaskPage:
        """Tasks newest first; user None means everybody's; `before` is the `next_before` of the page above."""
        highest = f"({before}" if before is not None else "+inf"
        with _translated():
            index: Any = self._redis.zrevrangebyscore(_index(user, state), highest, "-inf", 0, limit, withscores=True)
        # One that has just expired is in the index until the next pruning.
        found = self._load([_text(task_id) for task_id, _ in index])
        more = int(index[-1][1]) if len(index) == limit else None
        return TaskPage(tuple(found), more)

    def count(self, state: State) -> int:
        """How many tasks are in a state."""
        with _translated():
            return int(self._redis.zcard(_index(None, state)))

    def output_size(self, task_id: str) -> int:
        """Bytes of output stored so far."""
        with _translated():
            return int(self._redis.strlen(_key(task_id, "output")))

    def output(self, task_id: str, offset: int, max_bytes: int) -> bytes:
        """Output from a byte offset on, at most so many bytes."""
        with _translated():
            data: Any = self._redis.getrange(_key(task_id, "output"), offset, offset + max_bytes - 1)
        return bytes(data)

    def colours(self, task_id: str, first: int, last: int) -> list[ColourMark]:
        """The colour marks from output offset `first` to `last`, both included, in order."""
        with _translated():
            data: Any = self._colours(args=[task_id, first, last])
        return [ColourMark(offset, code.rstrip(b"\0").decode()) for offset, code in _COLOUR.iter_unpack(data)]

    def events(self, task_id: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """Events with a seq above `after`, in order, each with its `seq`; read page by page."""
        while True:
            with _translated():
                page: Any = self._redis.xrange(_key(task_id, "events"), f"{after + 1}-0", "+", _EVENT_PAGE)
            for entry_id, fields in page:
                after = int(_text(entry_id).partition("-")[0])
                yield {"seq": after, **json.loads(fields[b"event"])}
            if len(page) < _EVENT_PAGE:
                return

    def _load(self, task_ids: list[str]) -> list[TaskStatus]:
        """Those of the tasks that still exist, in the order asked, in one round trip."""
        pipeline = self._redis.pipeline(transaction=False)
        for task_id in task_ids:
            pipeline.hmget(_key(task_id), list(_STATUS_FIELDS))
        with _translated():
            rows = pipeline.execute()
        found = (_stored(task_id, values) for task_id, values in zip(task_ids, rows, strict=True))
        return [task for task in found if task is not None]

    def _go(
        self, task_id: str, to: State, fields: dict[str, Any], only_from: State | None = None, lease: str = ""
    ) -> None:
        legal = only_from or ",".join(state for state, targets in MOVES.items() if to in targets)
        expires = "" if to in MOVES else int(time.time()) + self._retention_seconds
        pairs = [part for pair in fields.items() for part in pair]
        with _translated():
            answer = _text(self._move(args=[task_id, to, legal, expires, lease, *pairs]))
        if answer != "moved":
            raise IllegalMove(f"task {task_id} is {answer} and cannot become {to}")


def _key(task_id: str, part: str = "") -> str:
    return f"{PREFIX}task:{task_id}:{part}" if part else f"{PREFIX}task:{task_id}"


def _index(user: str | None, state: State | None) -> str:
    if user is None:
        return f"{PREFIX}tasks:state:{state}" if state else f"{PREFIX}tasks"
    return f"{PREFIX}tasks:user:{user}:{state}" if state else f"{PREFIX}tasks:user:{user}"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _stored(task_id: str, values: list[Any]) -> TaskStatus | None:
    found = {name: _text(value) for name, value in zip(_STATUS_FIELDS, values, strict=True) if value is not None}
    if "state" not in found:
        return None
    state = State(found["state"])
    word = STATUS_WORDS[state]
    return TaskStatus(
        task_id=task_id,
        Status=f"{word}: {found['description']}" if state is State.ERROR else word,
        state=state,
        description=found["description"],
        returncode=int(found["returncode"]) if "returncode" in found else None,
        user=found["user"],
        kind=found["kind"],  # type: ignore[arg-type]  # validated by the model
        summary=found["summary"],
        submitted_at=found["submitted_at"],
        started_at=found.get("started_at"),
        finished_at=found.get("finished_at"),
    )
