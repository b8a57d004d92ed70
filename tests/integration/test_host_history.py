"""What is known of hosts, in both databases: compared with a plain count over all tasks that a user sees."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text, update

from flansible.history import schema
from flansible.history.archive import Archive
from flansible.history.host_history import HostHistory
from flansible.history.host_records import HostFilter, HostSummary, TaskViewer
from flansible.history.host_results import HostResult
from flansible.history.limits import HistoryLimits
from flansible.history.merged_records import Records
from flansible.models import About, State, Visibility
from flansible.store import Store, StoredEvent
from flansible.worker.archiver import Archiver
from tests.helpers.archived_tasks import VERDICTS, MadeTask, result
from tests.helpers.history import opened

PROD = Visibility(inventories=("/inv/prod",), entries=("group:ops", "user:eve"))
DEV = Visibility(inventories=("/inv/dev",), entries=("group:web",))
ADMIN = TaskViewer(None)
KEEPS_ALL = HistoryLimits(36500)


@pytest.fixture
def records(redis_url: str, history_url: str) -> Iterator[Records]:
    records = Records(redis_url, Archive(history_url, 5.0))
    yield records
    records.close()


@pytest.fixture
def new_archiver(redis_url: str, history_url: str) -> Iterator[Callable[..., Archiver]]:
    made: list[Archiver] = []

    def make(limits: HistoryLimits = KEEPS_ALL, keep_facts: bool = True) -> Archiver:
        archiver = Archiver(Store(redis_url), history_url, 0.0, limits, keep_facts)
        archiver._stopped.wait = lambda timeout=None: False  # type: ignore[method-assign]  # without rests
        made.append(archiver)
        return archiver

    yield make
    for archiver in made:
        archiver.close()


@pytest.fixture
def archiver(new_archiver: Callable[..., Archiver]) -> Archiver:
    return new_archiver()


def archive_all(archiver: Archiver) -> None:
    while archiver.run_round():
        pass


def facts(
    host: str, module: str = "ansible.builtin.setup", at: str = "2026-01-31T12:00:00.120Z", **of_host: Any
) -> StoredEvent:
    return result(host, "ok", module=module, time=at, result={"ansible_facts": of_host})


def ended(records: Records, *events: StoredEvent, inventory: str = "prod", **changes: Any) -> MadeTask:
    visibility = changes.pop("visibility", PROD if inventory == "prod" else DEV)
    task = MadeTask(records, about=About(inventory=inventory), visibility=visibility, **changes)
    task.add(b"text\n", *events)
    task.end()
    return task


@dataclass(frozen=True)
class Seen:
    """A task of the model: what each host's own results were."""

    task: MadeTask
    user: str
    inventory: str
    visibility: Visibility | None
    counts: dict[str, Counter[str]]


def make_many(records: Records, seed: int) -> list[Seen]:
    dice = random.Random(seed)
    made = []
    for _ in range(60):
        inventory = dice.choice(["prod", "dev", ""])
        visibility = dice.choice([None, PROD if inventory == "prod" else DEV])
        user = dice.choice(["lee", "pat", "eve"])
        hosts = dice.sample(["web1", "web2", "db1", "größe"], dice.randrange(4))
        counts = {host: Counter(dice.choices(VERDICTS, k=dice.randrange(1, 4))) for host in hosts}
        events = [result(host, verdict) for host, found in counts.items() for verdict in found.elements()]
        about = About(inventory=inventory or None)
        task = MadeTask(records, user=user, about=about, visibility=visibility)
        task.add(b"text\n", *events)
        task.end(dice.choice([State.SUCCEEDED, State.FAILED]))
        made.append(Seen(task, user, inventory, visibility, counts))
    return made


def sees(viewer: TaskViewer, found: Seen) -> bool:
    if viewer.user is None or found.user == viewer.user:
        return True
    return found.visibility is not None and viewer.sees(found.visibility)


def model(made: list[Seen], viewer: TaskViewer) -> dict[tuple[str, str], dict[str, Any]]:
    """What is to be known: the tasks one after the other, as they have ended."""
    known: dict[tuple[str, str], dict[str, Any]] = {}
    for one in made:
        for host, counts in one.counts.items() if sees(viewer, one) else ():
            found = known.setdefault((host, one.inventory), {"changed": None, "failed": None, "tasks": []})
            verdict = HostResult(host, counts).verdict
            found |= {"last": one.task.id, "verdict": verdict}
            found["tasks"].insert(0, (one.task.id, verdict, dict(counts)))
            if counts["changed"]:
                found["changed"] = one.task.id
            if verdict in ("failed", "unreachable"):
                found["failed"] = one.task.id
    return known


def shown(host: HostSummary) -> dict[str, Any]:
    return {
        "last": host.last.task_id,
        "verdict": host.verdict,
        "changed": host.changed.task_id if host.changed else None,
        "failed": host.failed.task_id if host.failed else None,
    }


def by_entry(*entries: str) -> Callable[[Visibility], bool]:
    return lambda found: bool(set(entries) & set(found.entries))


VIEWERS = [
    ADMIN,
    TaskViewer("lee"),
    TaskViewer("nobody"),
    TaskViewer("nobody", ("group:ops",), by_entry("group:ops")),
    TaskViewer("pat", ("group:ops", "group:web"), by_entry("group:ops", "group:web")),
    # The entry saw them then and would not see them now.
    TaskViewer("lee", ("group:ops",)),
]


def listed(history: HostHistory, wanted: HostFilter, limit: int) -> list[HostSummary]:
    """All pages."""
    found: list[HostSummary] = []
    after = None
    while True:
        page = history.page(wanted, after, limit)
        assert len(page.hosts) <= limit
        found += page.hosts
        after = page.next_after
        if after is None:
            return found


@pytest.mark.by_day(3)
@pytest.mark.parametrize("archived", [True, False], ids=["archived", "live"])
@pytest.mark.parametrize("viewer", range(len(VIEWERS)))
def test_what_is_known_of_a_host_is_what_the_tasks_that_are_seen_say(
    records: Records, archiver: Archiver, viewer: int, archived: bool
) -> None:
    who = VIEWERS[viewer]
    made = make_many(records, viewer)
    if archived:
        archive_all(archiver)
    else:
        archiver.run_round()  # the first fifty; the others are in Redis still
        assert records.finished_count() == 10
    history, expected = HostHistory(records, who), model(made, who)
    for name in ("web1", "web2", "db1", "größe", "nobody"):
        page = history.runs(name, None, None, 100)
        runs = [(run.task_id, run.verdict, run.counts) for run, _ in page.runs]
        of_name = {key: found for key, found in expected.items() if key[0] == name}
        order = [one.task.id for one in made]
        tasks = [task for found in of_name.values() for task in found["tasks"]]
        assert runs == sorted(tasks, key=lambda task: order.index(task[0]), reverse=True), name
        known = {(host.name, host.inventory): shown(host) for host in history.named(name, None, page.live)}
        assert known == {key: {k: v for k, v in found.items() if k != "tasks"} for key, found in of_name.items()}
    if archived:
        for limit in (1, 3, 100):
            names = [(host.name, host.inventory) for host in listed(history, HostFilter(), limit)]
            assert len(names) == len(set(names)) and set(names) == expected.keys()


@pytest.mark.parametrize("limit", [1, 4])
def test_pages_of_a_hosts_tasks_have_each_once(records: Records, archiver: Archiver, limit: int) -> None:
    made = make_many(records, 9)
    archiver.run_round()
    history = HostHistory(records, VIEWERS[4])
    whole = [run.task_id for run, _ in history.runs("web1", None, None, 100).runs]
    assert len(whole) > 8 and len(made) == 60
    found: list[str] = []
    before = None
    while True:
        page = history.runs("web1", None, before, limit)
        found += [run.task_id for run, _ in page.runs]
        before = page.next_before
        if before is None:
            break
    assert found == whole


def test_a_running_task_is_on_the_page_of_its_host_and_changes_not_how_it_fared_last(
    records: Records, archiver: Archiver
) -> None:
    first = ended(records, result("web1", "ok"))
    archive_all(archiver)
    task = MadeTask(records, about=About(inventory="prod"))
    task.add(b"", result("web1", "failed"))
    history = HostHistory(records, ADMIN)
    page = history.runs("web1", None, None, 10)
    assert [(run.task_id, run.verdict, status.state) for run, status in page.runs] == [
        (task.id, "failed", State.RUNNING),
        (first.id, "ok", State.SUCCEEDED),
    ]
    assert [shown(host)["last"] for host in history.named("web1", None, page.live)] == [first.id]


def test_filters_leave_what_they_name(records: Records, archiver: Archiver) -> None:
    ended(records, result("web1", "ok", groups=["web", "eu"]), result("web2", "failed", groups=["web"]))
    ended(records, result("web1", "changed"), inventory="dev")
    ended(records, result("DB1", "ok", groups=["db"]))
    archive_all(archiver)
    with opened(records.archive.database.url) as database, database.writing() as connection:  # type: ignore[union-attr]
        connection.execute(text("UPDATE host_scopes SET finished = 1000 WHERE verdict = 'failed'"))
        connection.execute(text("UPDATE tasks SET finished = 1000 WHERE number = 1"))
    history = HostHistory(records, ADMIN)

    def names(**wanted: Any) -> list[tuple[str, str]]:
        return [(host.name, host.inventory) for host in listed(history, HostFilter(**wanted), 10)]

    assert sorted(names()) == [("DB1", "prod"), ("web1", "dev"), ("web1", "prod"), ("web2", "prod")]
    assert names(name="EB2") == [("web2", "prod")] and names(name="db") == [("DB1", "prod")]
    assert names(inventory="dev") == [("web1", "dev")] and names(inventory="") == []
    assert names(verdict="failed") == [("web2", "prod")]
    assert names(group="web") == [("web1", "prod"), ("web2", "prod")] and names(group="we") == []
    assert names(stale_since=5000) == [("web1", "prod"), ("web2", "prod")]
    assert names(name="web", group="eu", verdict="ok") == [("web1", "prod")]


def test_facts_are_those_of_the_latest_run_that_is_seen(records: Records, archiver: Archiver) -> None:
    first = ended(records, facts("web1", a=1, deep={"x": ["ü"]}), user="lee")
    ended(records, facts("web1", module="gather_facts", a=2), user="pat", visibility=None)
    ended(records, facts("web1", module="set_fact", a=3), facts("web1", module="package_facts", packages={}))
    archive_all(archiver)
    assert HostHistory(records, TaskViewer("lee")).facts("web1", None).facts == {"a": 1, "deep": {"x": ["ü"]}}  # type: ignore[union-attr]
    assert HostHistory(records, TaskViewer("pat")).facts("web1", None).facts == {"a": 2}  # type: ignore[union-attr]
    assert HostHistory(records, TaskViewer("eve")).facts("web1", None) is None
    by_group = HostHistory(records, TaskViewer("eve", ("group:ops",), by_entry("group:ops"))).facts("web1", "prod")
    assert by_group is not None and (by_group.task_id, by_group.inventory) == (first.id, "prod")
    assert HostHistory(records, ADMIN).facts("web1", "dev") is None


def test_facts_of_one_run_are_joined_and_replace_those_of_the_run_before(records: Records, archiver: Archiver) -> None:
    ended(records, facts("web1", old=1))
    archive_all(archiver)
    ended(records, facts("web1", a=1, b=1), facts("web1", b=2), facts("web2"))
    archive_all(archiver)
    history = HostHistory(records, ADMIN)
    found = history.facts("web1", None)
    assert found is not None and found.facts == {"a": 1, "b": 2} and found.gathered == 1769860800120
    assert history.facts("web2", None) is None


def test_facts_are_those_that_were_gathered_last_whichever_task_ended_last(
    records: Records, archiver: Archiver
) -> None:
    ended(records, facts("web1", at="2026-01-31T13:00:00Z", a=2), facts("web2", at="2026-01-31T11:00:00Z", a=1))
    archive_all(archiver)
    ended(records, facts("web1", a=1), facts("web2", a=2))
    archive_all(archiver)
    history = HostHistory(records, ADMIN)
    for host in ("web1", "web2"):
        found = history.facts(host, None)
        assert found is not None and found.facts == {"a": 2}, host


def test_facts_of_an_attempt_that_was_lost_are_not_kept(records: Records, archiver: Archiver) -> None:
    task = MadeTask(records, on_lost="requeue")
    task.add(b"", facts("web1", a=1), StoredEvent(json.dumps({"event": "restart"})))
    task.end()
    archive_all(archiver)
    assert HostHistory(records, ADMIN).facts("web1", None) is None


def test_facts_go_with_their_task_and_with_the_setting(
    records: Records, archiver: Archiver, new_archiver: Callable[..., Archiver], history_url: str
) -> None:
    ended(records, facts("web1", a=1))
    gone = ended(records, facts("web2", a=1))
    archive_all(archiver)
    history = HostHistory(records, ADMIN)
    with opened(history_url) as database, database.writing() as connection:
        connection.execute(delete(schema.tasks).where(schema.tasks.c.id == gone.id))
    assert history.facts("web2", None) is None and history.facts("web1", None) is not None
    records._redis.hset("flansible:archiver", "until", 1)
    keeps_none = new_archiver(keep_facts=False)
    ended(records, facts("web3", a=1))
    archive_all(keeps_none)
    assert history.facts("web1", None) is None and history.facts("web3", None) is None
    assert [host.name for host in listed(history, HostFilter(), 10)] == ["web1", "web3"]


def test_what_an_earlier_version_has_archived_is_entered_later(
    records: Records, archiver: Archiver, history_url: str
) -> None:
    made = make_many(records, 3)
    archive_all(archiver)
    before = [shown(host) for host in listed(HostHistory(records, ADMIN), HostFilter(), 100)]
    with opened(history_url) as database, database.writing() as connection:
        for table in (schema.host_facts, schema.host_scopes, schema.scope_readers, schema.scopes):
            connection.execute(delete(table))
        connection.execute(update(schema.tasks).values(scope_key=None))
        connection.execute(update(schema.task_hosts).values(scope_key=None))
    history = HostHistory(records, VIEWERS[4])
    assert listed(history, HostFilter(), 100) == []
    archive_all(archiver)
    assert [shown(host) for host in listed(HostHistory(records, ADMIN), HostFilter(), 100)] == before
    assert {(host.name, host.inventory) for host in listed(history, HostFilter(), 100)} == model(
        made, VIEWERS[4]
    ).keys()
    with opened(history_url) as database, database.reading() as connection:
        for table in (schema.tasks, schema.task_hosts):
            missing = select(func.count()).select_from(table).where(table.c.scope_key.is_(None))
            assert connection.execute(missing).scalar() == 0


def test_what_is_entered_again_stays_as_it_is(records: Records, archiver: Archiver, history_url: str) -> None:
    ended(records, result("web1", "failed", groups=["web"]), facts("web1", a=1))
    ended(records, result("web1", "changed", groups=["web", "eu"]))
    archive_all(archiver)
    before = listed(HostHistory(records, ADMIN), HostFilter(), 10)
    assert before[0].groups == ("web", "eu") and before[0].failed is not None
    with opened(history_url) as database, database.writing() as connection:
        connection.execute(update(schema.tasks).values(scope_key=None))
    archive_all(archiver)
    assert listed(HostHistory(records, ADMIN), HostFilter(), 10) == before
    assert HostHistory(records, ADMIN).facts("web1", None) is not None


def test_hosts_of_which_no_task_is_kept_are_forgotten(
    records: Records, new_archiver: Callable[..., Archiver], history_url: str
) -> None:
    archiver = new_archiver(HistoryLimits(365, tasks=1))
    ended(records, result("old", "changed"), result("web1", "failed"))
    ended(records, result("web1", "ok"))
    archive_all(archiver)
    archiver._prune_at = 0.0
    archive_all(archiver)
    [found] = listed(HostHistory(records, ADMIN), HostFilter(), 10)
    assert (found.name, found.verdict, found.failed) == ("web1", "ok", None), "when it failed is not known any more"
    with opened(history_url) as database, database.reading() as connection:
        assert connection.execute(select(schema.hosts.c.name)).scalars().all() == ["web1"]


def test_the_latest_is_what_ended_last_whatever_was_submitted_last(records: Records, archiver: Archiver) -> None:
    slow = MadeTask(records, about=About(inventory="prod"))
    fast = ended(records, result("web1", "ok"))
    archive_all(archiver)
    slow.add(b"", result("web1", "failed"))
    slow.end(State.FAILED, 2)
    archive_all(archiver)
    [found] = listed(HostHistory(records, ADMIN), HostFilter(), 10)
    assert shown(found)["last"] == slow.id and found.verdict == "failed"
    assert [run.task_id for run, _ in HostHistory(records, ADMIN).runs("web1", None, None, 9).runs] == [
        fast.id,
        slow.id,
    ]


def test_of_two_tasks_with_one_number_a_user_is_shown_the_one_they_see(
    records: Records, archiver: Archiver, history_url: str
) -> None:
    """A Redis that was put back has given numbers twice."""
    of_user = {user: ended(records, result("web1", "failed"), user=user, visibility=None) for user in ("lee", "pat")}
    archive_all(archiver)
    with opened(history_url) as database, database.writing() as connection:
        for table in (schema.tasks, schema.task_hosts, schema.host_scopes):
            connection.execute(update(table).values(number=7))
        connection.execute(update(schema.host_scopes).values(failed_number=7))
    assert records.archive is not None
    for user, task in of_user.items():
        known = records.archive.known_hosts(TaskViewer(user))
        assert known is not None
        [host] = known.named("web1")
        assert (host.last.task_id, host.last.user) == (task.id, user)
        assert host.failed == host.last and host.changed is None
    known = records.archive.known_hosts(ADMIN)
    assert known is not None and [host.last.number for host in known.named("web1")] == [7]
