"""The events of a task: as pages, by long poll, or as a stream of Server-Sent Events that can be resumed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, get_args

from flask import Response, request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from flansible.errors import TaskDeleted
from flansible.models import FINAL_STATES, State, Verdict
from flansible.store import Position, Store
from flansible.web import serialization
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.parsing import parse_query
from flansible.web.resources.tasks import recorded_position, visible_task
from flansible.web.serialization import JSON, RequestUrl
from flansible.web.streaming import sse
from flansible.web.streaming.feeds import PIECE_BYTES, Feed, Piece
from flansible.web.streaming.follow import follow
from flansible.web.streaming.sse import STREAM, last_event_id
from flansible.web.streaming.viewer import Viewer

_READ_BYTES = 256 * 1024
_MOST_READS = 16  # for one page: a filter may skip about as much as a page can hold
_PAGE_BYTES = 4 * 1024 * 1024
_MOST_EVENTS = 10**12 - 1
_VERDICTS: tuple[str, ...] = get_args(Verdict)
_ONE_VERDICT = f"({'|'.join(_VERDICTS)})"


def _known_verdicts(value: str) -> str:
    for word in value.split(","):
        if word not in _VERDICTS:
            raise ValueError(f"{word!r} is not one of {', '.join(_VERDICTS)}")
    return value


class EventQuery(BaseModel):
    """`?after=&host=&verdict=&results=&limit=&wait=` of the events."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(0, ge=0, le=_MOST_EVENTS, description="Only events with a higher `seq`.")
    host: str | None = Field(None, min_length=1, max_length=1024, description="Only results of this host.")
    verdict: Annotated[str, AfterValidator(_known_verdicts)] | None = Field(
        None,
        description="Only results with this verdict, or with one of several separated by commas: "
        f"{', '.join(f'`{word}`' for word in _VERDICTS)}.",
        json_schema_extra={"pattern": f"^{_ONE_VERDICT}(,{_ONE_VERDICT})*$"},
    )
    results: bool = Field(True, description="Include each host's `result`; without it thousands of events stay small.")
    limit: int = Field(500, ge=1, le=5000, description="Maximum number of events per page. Not for a stream.")
    wait: float = Field(
        0,
        ge=0,
        le=60,
        allow_inf_nan=False,
        description="Maximum seconds to wait for an event or the task's end when there is neither. Not for a stream.",
    )


class AnsibleTaskEvents(PrivateResource):
    """What happened, in order: the start of plays and play tasks, each host's results, counts, the end.

    As `text/event-stream` the reply continues until the final event, which passes every filter. The header
    `Last-Event-ID`, which browsers send when they reconnect, replaces `after`; 204 when no event follows it.
    """

    def get(self, task_id: str) -> Response:
        """Read a task's events, or wait for them"""
        query = parse_query(EventQuery)
        is_stream = request.accept_mimetypes.best_match((JSON, STREAM), JSON) == STREAM
        resume_after = last_event_id()  # an invalid header is refused, also where it has no effect
        after = resume_after if is_stream else None
        store = web_context().store
        task = visible_task(task_id)
        position = recorded_position(task_id)
        assert position.state is not None
        verdicts = frozenset(query.verdict.split(",")) if query.verdict else frozenset()
        begin = query.after if after is None else after
        wanted = _EventFilter(task_id, begin, query.host or "", verdicts, query.results)
        if is_stream:
            if _is_final(position) and wanted.after >= position.events:
                return _no_content()
            return follow(_EventStream(task_id, wanted), STREAM, may_follow=Viewer.of(current_user()).watching(task))
        page = _Page(task_id, wanted, query.limit, position.state, serialization.request_url())
        piece = page.read(store, position, _MOST_READS)
        if _is_final(position) and piece.headers:
            store.keep_while_read([task_id])  # until the client has read the next page
        if piece.rest is not None and query.wait:
            return follow(piece.rest, JSON, query.wait, may_follow=Viewer.of(current_user()).watching(task))
        if piece.rest is not None:
            piece = piece.rest.timeout_reply()
        response = Response(piece.data, mimetype=JSON)
        response.headers.extend(piece.headers)
        return response


def _no_content() -> Response:
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def _is_final(position: Position) -> bool:
    return position.state in FINAL_STATES


@dataclass(frozen=True)
class _EventFilter:
    """Which events of a task are requested; host '' and no verdicts: all."""

    task_id: str
    after: int
    host: str
    verdicts: frozenset[str]
    with_results: bool

    def json(self, event: dict[str, Any]) -> str:
        """Serializes a stored event for the reply."""
        fields = serialization.event_fields(event)
        if not self.with_results:
            fields.pop("result", None)
        return serialization.dumps(fields)

    def read(self, store: Store, position: Position, limit: int, max_bytes: int) -> tuple[list[dict[str, Any]], int]:
        """Reads once; returns the matching events, and the seq up to which there are no others. Raises TaskDeleted."""
        position.require_recordings(self.task_id)
        if self.after >= position.events:
            return [], self.after
        # Few events may match the filter, so more are read than the limit.
        count = 500 if self.verdicts else limit
        page = store.event_page(self.task_id, self.after, count, max_bytes, self.host)
        if not page:
            store.recorded_position(self.task_id)  # none of this host, if all is still there
        found = [event for event in page if self._matches(event)]
        if len(found) > limit:
            return found[:limit], int(found[limit - 1]["seq"])
        return found, int(page[-1]["seq"]) if page else position.events

    def _matches(self, event: dict[str, Any]) -> bool:
        return not self.verdicts or event.get("verdict") in self.verdicts


@dataclass(frozen=True)
class _Page(Feed):
    """One page as JSON, sent once it has an event or no more will come."""

    task_id: str
    wanted: _EventFilter
    limit: int
    state: State
    url: RequestUrl

    def next(self, store: Store, position: Position) -> Piece:
        return self.read(store, position, 1)

    def read(self, store: Store, position: Position, most_reads: int) -> Piece:
        """Reads the page; without events for it yet, `rest` continues behind what was read."""
        found: list[str] = []
        wanted = self.wanted
        for _ in range(most_reads):
            more, after = wanted.read(store, position, self.limit - len(found), _READ_BYTES)
            found += map(wanted.json, more)
            wanted = replace(wanted, after=after)
            if len(found) == self.limit or after >= position.events or sum(map(len, found)) > _PAGE_BYTES:
                break
        page = replace(self, wanted=wanted, state=position.state or self.state)
        is_final = _is_final(position) and wanted.after >= position.events
        return page._reply(found, is_final) if found or is_final else Piece(b"", page)

    def timeout_reply(self) -> Piece:
        return self._reply([], False)

    def _reply(self, found: list[str], is_final: bool) -> Piece:
        """Builds EventPage from events that are JSON already."""
        fields = {
            "task_id": serialization.dumps(self.task_id),
            "state": serialization.dumps(self.state),
            "events": f"[{','.join(found)}]",
            "next_after": serialization.dumps(self.wanted.after),
            "final": serialization.dumps(is_final),
        }
        headers = () if is_final else (self.url.next_page(after=self.wanted.after),)
        return Piece(f"{serialization.json_object(fields)}\n".encode(), None, headers)


@dataclass(frozen=True)
class _EventStream(Feed):
    """Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html), up to the final one."""

    opening: ClassVar[bytes] = sse.OPENING
    keep_alive: ClassVar[bytes] = sse.KEEP_ALIVE

    task_id: str
    wanted: _EventFilter

    def next(self, store: Store, position: Position) -> Piece:
        found, after = self.wanted.read(store, position, 500, PIECE_BYTES)
        is_end = bool(found) and found[-1]["event"] == "final"
        if not is_end and _is_final(position) and after >= position.events:
            # The filter skipped it.
            last = store.event_page(self.task_id, position.events - 1, 1) if position.events else []
            if position.events and not last:
                raise TaskDeleted(self.task_id)
            found, is_end = found + last, True
        data = b"".join(sse.message(event["seq"], event["event"], self.wanted.json(event)) for event in found)
        return Piece(data, None if is_end else replace(self, wanted=replace(self.wanted, after=after)))
