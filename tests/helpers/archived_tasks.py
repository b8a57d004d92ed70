"""Tasks of many kinds in a store, and all that can be read of them, to compare it in both places."""

from __future__ import annotations

import json
import random
from typing import Any

from flansible.models import About, State, Visibility
from flansible.store import Batch, Claim, ColourMark, ListFilter, Progress, Store, StoredEvent
from tests.helpers.runs import make_run, new_id

VERDICTS = ("ok", "changed", "failed", "unreachable", "skipped", "rescued", "ignored")
_ENDS = (State.SUCCEEDED, State.FAILED, State.CANCELED, State.TIMED_OUT, State.ERROR, State.LOST)

_PLACE = ("/srv/größe",)
# By what others see the tasks, in turn.
_SEEN = (
    None,
    Visibility(inventories=_PLACE, entries=("group:ops",)),
    Visibility(inventories=_PLACE, hosts=(("web*",), ("w1", "w2")), entries=("group:ops", "user:größe")),
    Visibility(inventories=_PLACE),
    Visibility(inventories=_PLACE, entries=("user:größe",)),
)


class MadeTask:
    """A task that has run: claimed, with output, colours and events in batches."""

    def __init__(self, store: Store, **changes: Any) -> None:
        self.store = store
        self.id = new_id()
        store.submit(self.id, make_run(**changes))
        self.token = 0
        self.progress = Progress()
        self.begin()

    def begin(self) -> None:
        claim = self.store.claim(self.id, "worker")
        assert isinstance(claim, Claim)
        self.token, self.progress = claim.token, claim.progress

    def add(self, output: bytes = b"", *events: StoredEvent, colours: tuple[ColourMark, ...] = ()) -> None:
        before = self.progress
        end = before.output_bytes + len(output)
        batch = Batch(before, output, events, colours, end if events else before.events_end)
        assert self.store.append(self.id, self.token, batch).outcome == "running"
        self.progress = Progress(end, before.colours + len(colours), before.events + len(events), batch.events_end)

    def end(self, state: State = State.SUCCEEDED, returncode: int | None = 0, **more: Any) -> str:
        self.store.settle(self.id, state, f"the end: {state}", returncode, token=self.token, **more)
        return self.id


def result(host: str, verdict: str, **fields: Any) -> StoredEvent:
    event = {"event": "host_result", "host": host, "verdict": verdict, **fields}
    return StoredEvent(json.dumps(event), host, verdict in ("failed", "unreachable"), verdict=verdict)


def stats(hosts: list[str]) -> StoredEvent:
    return StoredEvent(json.dumps({"event": "stats", "stats": {host: {"ok": 1} for host in hosts}}), is_stats=True)


def make_tasks(store: Store, seed: int = 1, large: bool = True) -> list[str]:
    """Ends tasks with everything that the records of tasks can have; returns their ids, oldest first."""
    dice = random.Random(seed)
    made = []
    for number in range(24):
        odd = "größe.yml" if number == 5 else f"site{number % 3}.yml"
        about = About(playbook=odd if number % 4 else None, inventory=f"inv{number % 2}", hosts="web*")
        changes = {
            "user": f"user{number % 3}",
            "kind": "playbook" if number % 4 else "adhoc",
            "summary": f"Task {number} of ünï\n",
            "about": about,
            "on_lost": "requeue" if number == 7 else "fail",
            "visibility": _SEEN[number % len(_SEEN)],
        }
        task = MadeTask(store, **changes)
        _fill(task, dice, 40 if large and number == 11 else number % 6, number)
        if number == 7:
            store.mark_lost(task.id, "killed", task.token)
            task.begin()
            _fill(task, dice, 2, number)
        state = _ENDS[number % len(_ENDS)]
        more: dict[str, Any] = {"ended": ("sleep (7)",)} if number == 2 else {}
        if number == 0:
            more["warning"] = "no hosts matched"
        made.append(task.end(state, (0, 2, None, 4)[number % 4], **more))
    return made


def _fill(task: MadeTask, dice: random.Random, batches: int, number: int) -> None:
    hosts = [f"web{index}" for index in range(number % 5)] + ["größe", "w\\udcff"][: number % 3]
    for _ in range(batches):
        text = dice.randbytes(dice.choice([0, 10, 3000, 100_000])) + b"\n"
        start = task.progress.output_bytes
        places = sorted(dice.randrange(start, start + len(text) + 1) for _ in range(dice.randrange(4)))
        marks = tuple(ColourMark(place, dice.choice(["0", "0;32", "38;5;255"])) for place in places)
        events = [StoredEvent(json.dumps({"event": "task_start", "task": "a\nb"}), play_task="a")]
        events += [
            result(host, dice.choice(VERDICTS), text="x" * dice.choice([0, 100, 20_000]), n=dice.random())
            for host in hosts
        ]
        task.add(text, *events, colours=marks)
    if hosts and batches:
        task.add(b"", stats(hosts))


def everything(store: Store, task_id: str, dice: random.Random) -> dict[str, Any]:
    """All that the API reads of a task, as a whole and in pieces."""
    position = store.position(task_id)
    size = position.output_bytes
    slices = [(0, size + 10), (size, 10), (max(0, size - 1), 1)]
    slices += [(dice.randrange(size + 1), dice.choice([1, 1000, 131_072, 500_000])) for _ in range(6)]
    hosts = [host for first in range(0, 30, 2) for host in store.hosts(task_id, first, 2)]
    return {
        "status": store.task(task_id),
        "run": store.authorized_run(task_id),
        "position": position,
        "output": [store.output(task_id, offset, count) for offset, count in slices],
        "colours": [
            store.colours(task_id, offset, offset + count, with_previous=bool(index % 2))
            for index, (offset, count) in enumerate(slices)
        ],
        "events": list(store.events(task_id)),
        "pages": [
            store.event_page(task_id, dice.randrange(position.events + 1), dice.choice([1, 3, 500]), limit)
            for limit in (1, 1000, 50_000, 1 << 22)
        ],
        "hosts": hosts,
        "host pages": [store.event_page(task_id, after, 3, 1 << 20, host) for host in hosts for after in (0, 4, 10**6)],
        "host events": store.host_events(task_id, hosts, 5, 1 << 20),
        "unknown host": store.event_page(task_id, 0, 5, 100, "nobody"),
        "stats": store.stats_event(task_id),
    }


FILTERS = [
    ListFilter(),
    ListFilter(user="user1"),
    ListFilter(state=State.FAILED),
    ListFilter(user="user0", state=State.SUCCEEDED),
    ListFilter(kind="adhoc"),
    ListFilter(words="TASK 1"),
    ListFilter(words="ünï"),
    ListFilter(words="nothing of the kind"),
    ListFilter(words="\0"),
    ListFilter(playbook="site1.yml"),
    ListFilter(host="web1"),
    ListFilter(host="größe", user="user0"),
    ListFilter(host="nobody"),
    ListFilter(user="user1", entries=("group:ops",)),
    ListFilter(user="user1", entries=("group:ops", "user:größe", "group:nobody")),
    ListFilter(user="nobody", entries=("user:größe",), state=State.FAILED),
    ListFilter(user="user1", entries=("group:ops",), of_user="user2"),
    ListFilter(user="user1", entries=("group:ops",), host="web1", kind="playbook"),
    ListFilter(user="user1", entries=("group:ops",), host="web1", of_user="user1"),
    ListFilter(changed=True),
    ListFilter(changed=False),
    ListFilter(returncode=2),
    ListFilter(returncode=0, kind="playbook", host="web0"),
]


def list_of(store: Store, wanted: ListFilter, limit: int) -> list[Any]:
    """All pages of a list, one after the other."""
    found: list[Any] = []
    before = None
    while True:
        page = store.search(wanted, before, limit)
        assert len(page.tasks) <= limit
        found += page.tasks
        before = page.next_before
        if before is None:
            return found
