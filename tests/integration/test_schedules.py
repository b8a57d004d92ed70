"""Schedules with a real store and database, and a clock of the test's own: each due time once, or its reason."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from cronsim import CronSim

from flansible.broker import app as broker_app
from flansible.config import Settings
from flansible.definitions import schedule_times
from flansible.definitions.kinds import SCHEDULES
from flansible.definitions.schedule_decisions import KnownSchedule, milliseconds, reason_of
from flansible.errors import BadGateway, BrokerUnavailable
from flansible.history.schedule_rows import STARTING, ScheduleRows, StoredOccurrence
from flansible.models import State
from flansible.store import LateSchedule
from flansible.web import scheduler
from flansible.web.context import WebContext
from flansible.web.scheduler import Scheduler
from tests.helpers.launching import USERS, VALUES, Site
from tests.helpers.redis_server import RedisServer
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.usefixtures("broker")

NIGHTLY = {"template": "deploy", "values": VALUES, "every": "1h", "timezone": "Europe/Berlin"}
WRITERS = {"may_define": ["templates", "schedules", "freezes"]}


class Clocked(Site):
    """A site whose schedulers have a clock that the test sets. The schedule is due each hour from `written`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.write_users(**{**USERS, "dev": {**USERS["dev"], **WRITERS}, "portal": {"inventories": [], **WRITERS}})
        self.now = datetime.now(UTC)
        self.written = self.now

    @property
    def rows(self) -> ScheduleRows:
        assert self.context.schedules is not None
        return self.context.schedules

    def scheduler(self) -> Scheduler:
        return Scheduler(self.context, lambda: self.now)

    def write(self, name: str = "nightly", user: str = "portal", **changes: Any) -> dict[str, Any]:
        self.template()
        body = dict(self.put(f"schedules/{name}", {**NIGHTLY, **changes}, user).get_json())
        stored = self.stored(name)
        self.written = datetime.fromtimestamp(stored / 1000, UTC)
        return body

    def stored(self, name: str = "nightly") -> int:
        assert self.context.definitions is not None
        found = self.context.definitions.find(SCHEDULES.name, name)
        assert found is not None
        return found.updated

    def look(self, *looking: Scheduler, **after: float) -> None:
        """Has schedulers look so long after the schedule was written."""
        self.now = self.written + timedelta(**after)
        for one in looking or (self.scheduler(),):
            with self.app.app_context():
                one.run_round(self.rows)

    def outcomes(self, name: str = "nightly") -> list[str]:
        return [item["outcome"] for item in self.items(name)][::-1]

    def items(self, name: str = "nightly") -> list[dict[str, Any]]:
        return list(self.get(f"schedules/{name}/occurrences?limit=1000", "admin")["items"])

    def tasks(self) -> list[dict[str, Any]]:
        return list(self.get("ansibletasks?limit=1000", "admin")["tasks"])


@pytest.fixture
def site(make_settings: Callable[..., Settings], redis_url: str, history_url: str) -> Iterator[Clocked]:
    with Clocked.open(make_settings, redis_url, history_url) as made:
        yield made


def test_a_due_time_starts_one_task_of_the_template_as_its_owner(site: Clocked) -> None:
    site.write()
    one = site.scheduler()
    site.look(one, minutes=59)
    assert site.tasks() == [] and site.items() == []
    site.look(one, minutes=60, seconds=1)
    site.look(one, minutes=60, seconds=2)
    [task] = site.tasks()
    found = {name: task[name] for name in ("user", "run_as", "trigger", "template")}
    assert found == {"user": "portal", "run_as": "dev", "trigger": "schedule", "template": "deploy"}
    [item] = site.items()
    assert (item["outcome"], item["task_id"]) == ("started", task["task_id"])
    assert item["due_at"] == f"{(site.written + timedelta(hours=1)).isoformat(timespec='milliseconds')[:-6]}Z"
    assert site.run(task["task_id"]).steps[0].launch_vars == VALUES["extra_vars"]


def test_successes_and_skips_are_counted_for_prometheus_until_the_schedule_is_deleted(site: Clocked) -> None:
    site.write()
    one = site.scheduler()
    site.look(one, hours=1, seconds=1)
    site.look(one, hours=2, seconds=1)
    assert site.outcomes() == ["started", "skipped: overlap"]
    [task] = site.tasks()
    site.end(task["task_id"])
    site.look(one, hours=2, seconds=2)
    store = site.context.store
    assert store.metrics().count("schedule_skips", "overlap") == 1
    assert store.metrics().schedule_successes() == {"nightly": round(site.now.timestamp(), 3)}
    assert site.client.delete("/api/schedules/nightly", auth=("portal", "secret")).status_code == 204
    site.look(one, hours=2, seconds=3)
    assert store.metrics().schedule_successes() == {}


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("started", None),
        (STARTING, None),
        ("skipped: late by 3 h, and a later one is due", "late"),
        ("skipped: freeze xmas", "freeze"),
        ("skipped: deleted", "deleted"),
        ("skipped: queue is full", "queue is full"),
        ("refused: rights", "refused"),
        ("failed: see the log of the web server", "failed"),
    ],
)
def test_the_reason_that_an_outcome_has(outcome: str, reason: str | None) -> None:
    assert reason_of(outcome) == reason


def test_of_two_that_look_at_the_same_time_one_starts_it(site: Clocked) -> None:
    site.write(overlap="allow")
    both = [site.scheduler(), site.scheduler()]
    for hour in range(1, 6):
        site.now = site.written + timedelta(hours=hour)
        gate = threading.Barrier(2)

        def look(one: Scheduler, gate: threading.Barrier = gate) -> None:
            gate.wait()
            with site.app.app_context():
                one.run_round(site.rows)

        threads = [threading.Thread(target=look, args=(one,)) for one in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    site.look(*both, hours=5, seconds=1)
    assert site.outcomes() == ["started"] * 5
    assert len({item["task_id"] for item in site.items()}) == len(site.tasks()) == 5


def test_only_the_holder_of_the_lease_looks(site: Clocked) -> None:
    site.write()
    one, other = site.scheduler(), site.scheduler()
    with site.app.app_context():
        one.tick()
        site.now = site.written + timedelta(hours=1)
        other.tick()
        assert site.items() == []
        one.tick()
    assert site.outcomes() == ["started"]


def test_what_a_process_has_claimed_and_not_started_when_it_died_is_started_once(site: Clocked) -> None:
    site.write(overlap="allow")
    site.look(minutes=1)
    due = milliseconds(site.written + timedelta(hours=1))
    claimed = StoredOccurrence("nightly", due, STARTING, due, is_open=True)
    with site.rows.writing() as writer:
        writer.add([claimed])
    site.look(minutes=60, seconds=8)
    site.look(minutes=60, seconds=9)
    assert site.outcomes() == ["started"] and len(site.tasks()) == 1


def test_what_a_process_has_started_and_not_recorded_when_it_died_is_not_started_again(site: Clocked) -> None:
    site.write(overlap="allow")
    site.look(minutes=1)
    due = milliseconds(site.written + timedelta(hours=1))
    with site.rows.writing() as writer:
        writer.add([StoredOccurrence("nightly", due, STARTING, due, is_open=True)])
    assert site.context.definitions is not None
    stored = site.context.definitions.find(SCHEDULES.name, "nightly")
    assert stored is not None
    with site.app.app_context():
        task_id = scheduler.launch(site.context, KnownSchedule.of(stored), due, ())
    site.template(description="another digest")
    site.look(minutes=60, seconds=8)
    [item] = site.items()
    assert (item["outcome"], item["task_id"], len(site.tasks())) == ("started", task_id, 1)


def test_a_clock_that_is_set_back_an_hour_starts_nothing_twice(site: Clocked) -> None:
    site.write(overlap="allow")
    one = site.scheduler()
    for minutes in (60, 61, 1, 30, 60, 90, 119, 120):
        site.look(one, minutes=minutes)
    site.look(minutes=30)
    assert site.outcomes() == ["started", "started"] and len(site.tasks()) == 2


def test_after_a_night_without_the_service_each_time_has_its_reason(site: Clocked) -> None:
    site.write(overlap="allow")
    store = site.context.store
    assert store.set_notified(store.notified()[0], frozenset({"late"}))
    site.look(hours=8, minutes=30)
    assert site.outcomes() == [f"skipped: late by {hours} h" for hours in range(7, 0, -1)] + ["skipped: late by 30 min"]
    [told] = store.outbox(10)
    due = milliseconds(site.written + timedelta(hours=8))
    assert told.event == "late" and told.schedule == LateSchedule("nightly", "portal", "deploy", due)
    site.look(hours=9)
    assert site.outcomes()[-1] == "started" and len(site.tasks()) == 1


def test_a_night_of_seconds_is_recorded_without_a_gap(site: Clocked) -> None:
    site.write(every="5s", overlap="allow")
    one = site.scheduler()
    for _ in range(4):
        site.look(one, hours=8)
    found = site.rows.page("nightly", None, 100_000)[::-1]
    steps = {later.due - last_due(one) for one, later in zip(found, found[1:], strict=False)}
    assert steps == {5000} and found[0].due == milliseconds(site.written + timedelta(seconds=5))
    assert last_due(found[-1]) == milliseconds(site.written + timedelta(hours=8))
    assert {one.outcome for one in found[:-13]} == {one.outcome for one in found if one.outcome.startswith("skipped")}


def last_due(found: StoredOccurrence) -> int:
    """Returns up to when an item tells what was due."""
    return milliseconds(datetime.fromisoformat(found.detail.split()[-1])) if found.detail else found.due


def test_a_paused_schedule_of_each_second_has_a_row_for_each_hour_and_reason(site: Clocked) -> None:
    site.write(every="1s", paused=True)
    one = site.scheduler()
    for seconds in (1, 2, 3, 1800, 3600, 3601, 3602, 5000):
        site.look(one, seconds=seconds)
    first, second = site.rows.page("nightly", None, 100_000)[::-1]
    assert {first.outcome, second.outcome} == {"skipped: paused"}
    assert second.due - last_due(first) == 1000 and first.due == milliseconds(site.written + timedelta(seconds=1))
    assert last_due(second) == milliseconds(site.written + timedelta(seconds=5000))
    assert site.context.store.metrics().count("schedule_skips", "paused") == 5000


def test_a_round_ends_within_the_lease_however_many_schedules_are_due(
    site: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"s{number}" for number in range(6)]
    for name in names:
        site.write(name, paused=True, every="1s")
    clock = itertools.count()
    one = site.scheduler()
    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "monotonic", lambda: float(next(clock)))
        site.look(one, seconds=1)
        assert [bool(site.items(name)) for name in names] == [True] * 2 + [False] * 4
        site.look(one, seconds=2)
        site.look(one, seconds=3)
    assert all(site.items(name) for name in names)


def test_while_a_task_runs_the_next_is_skipped_waits_or_replaces_it(site: Clocked) -> None:
    for overlap, expected in {
        "skip": ["started", "skipped: overlap", "skipped: overlap"],
        "queue_one": ["started", "started", "skipped: overlap"],
        "allow": ["started", "started", "started"],
        "cancel_running": ["started", "started", "started"],
    }.items():
        site.write(overlap, overlap=overlap)
        for hour in (1, 2, 3):
            site.look(hours=hour, seconds=1)
        assert site.outcomes(overlap) == expected
        tasks = [item["task_id"] for item in site.items(overlap) if item["task_id"]]
        locks = {lock for task_id in tasks for lock in site.run(task_id).locks}
        assert locks == ({f"\0schedule:{overlap}"} if overlap in ("queue_one", "cancel_running") else set())
        states = [site.get(f"ansibletaskstatus/{task_id}", "admin")["state"] for task_id in tasks]
        assert states == (
            ["queued", "canceled", "canceled"] if overlap == "cancel_running" else ["queued"] * len(tasks)
        )


@pytest.mark.parametrize("outcome", ["refused: rights", "refused: values", "refused: not there"])
def test_a_start_that_is_refused_cancels_no_running_task(site: Clocked, outcome: str) -> None:
    site.write(overlap="cancel_running")
    one = site.scheduler()
    site.look(one, hours=1)
    REFUSED[outcome](site)
    site.look(one, hours=2)
    assert site.outcomes() == ["started", outcome]
    assert [task["state"] for task in site.tasks()] == ["queued"]


def test_a_task_that_has_ended_holds_nothing_back(site: Clocked) -> None:
    site.write()
    one = site.scheduler()
    site.look(one, hours=1)
    site.end(site.items()[0]["task_id"])
    site.look(one, hours=2)
    assert site.outcomes() == ["started", "started"]


def test_it_pauses_after_failures_in_a_row_and_goes_on_when_it_is_resumed(site: Clocked) -> None:
    site.write(pause_after_failures=2)
    ends = (State.FAILED, State.SUCCEEDED, State.FAILED, State.TIMED_OUT)
    for hour, state in enumerate(ends, 1):
        site.look(hours=hour)
        site.end(site.items()[0]["task_id"], state)
    site.look(hours=5)
    site.look(hours=6)
    assert site.outcomes() == ["started"] * 4 + ["skipped: paused"] * 2
    shown = site.get("schedules/nightly", "portal")
    assert (shown["paused"], shown["paused_by"], shown["failures"]) == (True, "failures", 2)
    resumed = site.post("schedules/nightly/resume", None).get_json()
    assert (resumed["paused"], resumed["failures"]) == (False, 0)
    site.look(hours=7)
    assert site.outcomes()[-1] == "started"


def test_a_schedule_and_a_freeze_whose_zone_is_gone_hold_up_no_other_and_are_shown(
    site: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write("a-gone")
    site.write()
    site.put("freezes/gone", {"cron": "* * * * *", "duration": "1h", "timezone": "Pacific/Apia"}, "admin")
    site.put("schedules/a-gone", {**NIGHTLY, "timezone": "Pacific/Apia"}, "portal")

    def without(name: str) -> ZoneInfo:
        if name == "Pacific/Apia":
            raise ZoneInfoNotFoundError(name)
        return ZoneInfo(name)

    monkeypatch.setattr(schedule_times, "ZoneInfo", without)
    site.look(hours=1)
    assert (site.outcomes("a-gone"), site.outcomes()) == ([], ["started"])
    shown = {item["name"]: item for item in site.get("schedules", "admin")["items"]}
    assert len(shown["nightly"]["next"]) == 5
    assert shown["a-gone"]["next"] == [] and "cannot be computed" in shown["a-gone"]["words"]
    assert [item["is_active"] for item in site.get("freezes", "admin")["items"]] == [False]
    site.launch()


def test_the_next_times_are_worked_out_once_for_each_revision(site: Clocked, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def begin(line: str, start: datetime) -> CronSim:
        begun.append(line)
        return CronSim(line, start)

    site.write(every=None, cron="0 0 1 1 *", exclude=[f"{year}-01-01" for year in range(2030, 2999)])
    monkeypatch.setattr(schedule_times, "CronSim", begin)
    first = site.get("schedules", "admin")
    once = len(begun)
    assert site.get("schedules", "admin") == first
    assert len(begun) - once <= 1, "its words"
    site.write(every=None, cron="0 0 2 1 *")
    [changed] = site.get("schedules", "admin")["items"]
    assert [one["local"][5:10] for one in changed["next"]] == ["01-02"] * 5


@pytest.mark.parametrize("where", ["due", "next_start"])
def test_a_schedule_that_cannot_be_computed_holds_up_no_other_and_is_logged_once(
    site: Clocked, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.write("a-faulty")
    site.write()
    compute = getattr(KnownSchedule, where)

    def faulty(known: KnownSchedule, *args: Any) -> Any:
        if known.name == "a-faulty":
            raise OverflowError("date value out of range")
        return compute(known, *args)

    monkeypatch.setattr(KnownSchedule, where, faulty)
    one = site.scheduler()
    for seconds in (0, 1):
        site.look(one, hours=1, seconds=seconds)
    assert (site.outcomes("a-faulty"), site.outcomes()) == ([], ["started"])
    assert caplog.text.count("schedule a-faulty cannot be computed") == 1


REFUSED: dict[str, Callable[[Clocked], object]] = {
    "refused: rights": lambda site: site.write_users(**{**USERS, "dev": {"inventories": []}}),
    "refused: no template": lambda site: site.client.delete("/api/templates/deploy", auth=("admin", "secret")),
    "refused: values": lambda site: site.template(variables={"version": {"pattern": "v.*"}}),
    "refused: not there": lambda site: (site.settings.playbook_root / "t.yml").unlink(),
    "skipped: freeze now": lambda site: site.put(
        "freezes/now", {"start": "2020-01-01T00:00", "end": "2999-01-01T00:00", "timezone": "UTC"}, "admin"
    ),
    "skipped: paused": lambda site: site.post("schedules/nightly/pause", {"note": "the disk"}),
    "skipped: on request": lambda site: site.post("schedules/nightly/skip?next=1", None),
}


@pytest.mark.parametrize("outcome", REFUSED)
def test_what_does_not_start_leaves_its_reason(site: Clocked, outcome: str) -> None:
    site.write()
    REFUSED[outcome](site)
    site.look(hours=1)
    assert site.outcomes() == [outcome] and site.tasks() == []


def test_an_owner_who_is_gone_or_may_not_launch_any_more_starts_nothing(site: Clocked) -> None:
    site.write(overlap="allow")
    site.template(allow={"users": [], "groups": []})
    site.look(hours=1)
    site.write_users(**{name: entry for name, entry in USERS.items() if name != "portal"})
    site.look(hours=2)
    assert site.outcomes() == ["refused: no template", "refused: rights"]


def test_while_the_broker_is_away_a_start_is_tried_again_until_it_is_late(
    site: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write()
    one = site.scheduler()
    with monkeypatch.context() as away:
        away.setattr(broker_app, "enqueue", _refuse)
        site.look(one, hours=1)
        assert site.outcomes() == ["starting"] and site.tasks() == []
    site.look(one, hours=1, seconds=20)
    assert site.outcomes() == ["started"]
    with monkeypatch.context() as away:
        away.setattr(broker_app, "enqueue", _refuse)
        site.end(site.items()[0]["task_id"])
        site.look(one, hours=2)
        site.look(one, hours=2, seconds=61)
    assert site.outcomes() == ["started", "failed: the service could not start it"]


@pytest.mark.parametrize("outcome", ["skipped: freeze now", "skipped: paused"])
def test_a_start_that_was_put_off_does_not_begin_in_a_freeze_or_a_pause(
    site: Clocked, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write(catch_up="8h")
    one = site.scheduler()
    with monkeypatch.context() as away:
        away.setattr(broker_app, "enqueue", _refuse)
        site.look(one, hours=1)
    assert site.outcomes() == ["starting"]
    REFUSED[outcome](site)
    site.look(one, hours=1, minutes=30)
    assert site.outcomes() == [outcome] and site.tasks() == []


def test_a_start_whose_remote_is_away_is_tried_every_few_seconds_for_as_long_as_it_may_be_late(
    site: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write(catch_up="3h")
    one, tries = site.scheduler(), []

    def fail(*_: Any) -> None:
        tries.append(1)
        raise BadGateway("the remote does not answer")

    with monkeypatch.context() as away:
        away.setattr(scheduler, "launch", fail)
        for seconds in range(12):
            site.look(one, hours=1, seconds=seconds)
        assert site.outcomes() == ["starting"] and len(tries) == 3
        site.look(one, hours=1)
        assert len(tries) == 4, "a clock that was set back"
    site.look(one, hours=1, minutes=30)
    assert site.outcomes() == ["started"]


SLOW: dict[str, dict[str, Any]] = {
    "project": {"request": {"project": "shop", "playbook": "site.yml"}},
    "max_hosts": {"max_hosts": 5},
    "require_limit": {"require_limit": True, "request": {"playbook": "t.yml", "limit": "web1"}},
    "choices_from": {"variables": {"version": {"choices_from": {"group": "releases"}}}},
}


@pytest.mark.parametrize("waits_for", SLOW)
def test_a_start_that_waits_for_something_holds_up_no_other_schedule(
    site: Clocked, waits_for: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("projects/shop", {"url": "https://git.example.org/shop.git"}, "admin")
    site.template("admin", "slow", **SLOW[waits_for])
    site.write("a-slow", template="slow")
    site.write()
    answers, asked, launch = threading.Event(), [], scheduler.launch

    def slow(context: WebContext, known: KnownSchedule, due: int, locks: tuple[str, ...]) -> str:
        if known.name == "nightly":
            return launch(context, known, due, locks)
        asked.append(due)
        assert answers.wait(30)
        return str(uuid.uuid4())

    monkeypatch.setattr(scheduler, "launch", slow)
    one = site.scheduler()
    for hours in (1, 2):
        site.look(one, hours=hours)
        assert site.outcomes("a-slow") == ["starting"] * hours and len(asked) == 1
        assert site.outcomes() == ["started"] * hours
        site.end(site.items()[0]["task_id"])
    answers.set()
    eventually(lambda: site.look(one, hours=2) or "started" in site.outcomes("a-slow"))
    eventually(lambda: site.look(one, hours=2) or "starting" not in site.outcomes("a-slow"))
    assert len(asked) == len(set(asked)) == 2


def test_the_lease_is_renewed_after_each_start_that_took_long(
    site: Clocked, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        site.write(name)
    one, other = site.scheduler(), site.scheduler()
    site.now = site.written + timedelta(hours=1)
    elapsed, taken = [0.0], []

    def launch_slowly(*_: Any) -> str:
        taken.append(other.hold_lease())
        elapsed[0] += scheduler.LEASE_SECONDS
        client = shared_redis.client()
        client.delete("flansible:scheduler")  # as Redis does when the time is over
        client.close()
        return str(uuid.uuid4())

    monkeypatch.setattr(scheduler, "launch", launch_slowly)
    monkeypatch.setattr(scheduler, "monotonic", lambda: elapsed[0], raising=False)
    with site.app.app_context():
        one.tick()
    assert taken == [False, False, False]


def _refuse(*_: Any, **__: Any) -> None:
    raise BrokerUnavailable("away")


def test_the_reply_has_the_next_five_times_and_words(site: Clocked) -> None:
    shown = site.write(every=None, cron="30 2 * * *")
    assert shown["words"] == "At 02:30 every day (Europe/Berlin)" and len(shown["next"]) == 5
    assert all(one["local"][10:16] == "T02:30" and one["utc"].endswith("Z") for one in shown["next"])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cron": "0 2 * * *"}, "every"),
        ({"every": None, "at": "2027-03-28T02:30"}, "at"),
        ({"timezone": "Nowhere"}, "timezone"),
        ({"template": "none"}, "template"),
        ({"values": {"extra_vars": {"version": "x"}}}, "values.extra_vars.version"),
        ({"values": {"limit": "web1", **VALUES}}, "values.limit"),
        ({"values": {"secret_vars": {"pin": "1"}}}, "values.secret_vars"),
        ({"every": "2"}, "every"),
    ],
)
def test_a_schedule_is_checked_when_it_is_written(site: Clocked, changes: dict[str, Any], field: str) -> None:
    site.template()
    body = {name: value for name, value in {**NIGHTLY, **changes}.items() if value is not None}
    reply = site.put("schedules/nightly", body, "portal", 400)
    assert field in {error["field"] for error in reply.get_json()["errors"]}


def test_template_and_schedule_are_applied_in_one_step(site: Clocked) -> None:
    request = {"playbook": "t.yml", "inventory": str(site.settings.base_dir / "dev")}
    definitions = [
        {"kind": "templates", "name": "deploy", "spec": {"kind": "playbook", "request": request}},
        {"kind": "schedules", "name": "nightly", "spec": {**NIGHTLY, "values": {}}},
    ]
    for dry_run in (True, False):
        reply = site.post("apply", {"definitions": definitions, "dry_run": dry_run}, "dev")
        assert reply.status_code == 200, reply.text
    assert site.get("schedules/nightly", "dev")["template"] == "deploy"


def test_owner_and_admin_run_pause_and_skip_it_and_others_do_not(site: Clocked) -> None:
    site.write()
    site.write_users(**{**USERS, "portal": {"inventories": []}, "other": {"inventories": []}})
    for verb, body in (("run", None), ("pause", {}), ("resume", None), ("skip", None)):
        assert site.post(f"schedules/nightly/{verb}", body, "other").status_code == 404
        assert site.post(f"schedules/nightly/{verb}", body, "eve").status_code == 403
    launched = site.post("schedules/nightly/run", None)
    assert launched.status_code == 202, launched.text
    task = site.get(f"ansibletaskstatus/{launched.get_json()['task_id']}")
    assert (task["trigger"], task["user"]) == ("api", "portal")
    assert site.items()[0]["detail"] == "run by portal"
    assert site.post("schedules/nightly/skip?next=3", None, "admin").get_json()["skips_left"] == 3
    paused = site.post("schedules/nightly/pause", {"note": "why"}, "admin").get_json()
    assert (paused["paused"], paused["paused_by"], paused["note"]) == (True, "admin", "why")
    lines = site.settings.audit_file.read_text()
    assert '"what": "schedules/nightly", "outcome": "paused"' in lines


def test_run_with_the_same_key_starts_one_task(site: Clocked) -> None:
    site.write()
    first, second = [site.post("schedules/nightly/run", None, Idempotency_Key="k1") for _ in range(2)]
    assert first.status_code == second.status_code == 202 and first.get_json() == second.get_json()
    assert "Idempotency-Replayed" not in first.headers and second.headers["Idempotency-Replayed"] == "true"
    assert [one["detail"] for one in site.items()] == ["run by portal"]


def test_a_change_ends_pause_and_skips_and_counts_anew(site: Clocked) -> None:
    site.write()
    site.post("schedules/nightly/pause", {})
    before = site.written
    site.write(note="changed")
    assert site.written > before and site.get("schedules/nightly", "portal")["paused"] is False
    site.write(note="changed")
    assert milliseconds(site.written) == site.stored(), "what is the same already counts on"


def test_during_a_freeze_a_template_is_launched_by_admin_and_who_says_so(site: Clocked) -> None:
    site.template()
    window = {"start": "2020-01-01T00:00", "end": "2999-01-01T00:00", "timezone": "UTC", "templates": ["dep*"]}
    assert site.put("freezes/now", window, "admin").get_json()["is_active"] is True
    assert site.refusal() == (403, "frozen", set())
    assert site.post("templates/deploy/launch?during_freeze=true", VALUES).status_code == 202
    site.launch("admin")
    site.put("freezes/now", {**window, "templates": ["other"]}, "admin")
    site.launch()


def test_pages_of_occurrences_follow_each_other(site: Clocked) -> None:
    site.write(overlap="allow")
    site.look(hours=5)
    seen: list[str] = []
    before: int | None = None
    while before != 0:
        page = site.get(f"schedules/nightly/occurrences?limit=2{f'&before={before}' if before else ''}", "portal")
        seen += [item["due_at"] for item in page["items"]]
        before = page["next_before"] or 0
    assert len(seen) == 5 and seen == sorted(seen, reverse=True)


def test_what_is_over_for_ninety_days_is_forgotten(site: Clocked) -> None:
    site.write()
    site.look(hours=1)
    site.end(site.items()[0]["task_id"])
    site.look(hours=2)
    site.look(days=92)
    assert all(item["outcome"] != "started" or "late" not in item["outcome"] for item in site.items())
    oldest = site.items()[-1]["due_at"]
    assert datetime.fromisoformat(oldest) > site.now - timedelta(days=91)


@pytest.mark.nightly
def test_a_thousand_schedules_of_one_minute_are_queued_within_ten_seconds(site: Clocked) -> None:
    site.template()
    definitions = [
        {"kind": "schedules", "name": f"s{number}", "spec": {**NIGHTLY, "overlap": "allow"}} for number in range(1000)
    ]
    reply = site.post("apply", {"definitions": definitions}, "portal")
    assert reply.status_code == 200, reply.text
    site.written = datetime.fromtimestamp(max(site.stored(f"s{number}") for number in (0, 999)) / 1000, UTC)
    one = site.scheduler()
    site.look(one, minutes=1)
    began, used = time.monotonic(), time.process_time()
    site.look(one, hours=1, seconds=1)
    took, used = time.monotonic() - began, time.process_time() - used
    print(f"1,000 schedules queued in {took:.1f} s, with {used:.1f} s of CPU time")
    # A machine that does other things as well takes longer.
    assert len(site.tasks()) == 1000 and used < 8
