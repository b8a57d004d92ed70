"""Search over archived tasks, on SQLite and PostgreSQL: what is found, where, by whom, and what is not any more."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text, update

from flansible.history import schema, search_words
from flansible.history.archive import Archive
from flansible.history.archived_search import FoundPage, FoundTask, SearchFilter
from flansible.history.limits import HistoryLimits
from flansible.history.merged_records import Records
from flansible.models import About, State, Visibility
from flansible.store import ListFilter, Store
from flansible.worker.archiver import Archiver
from tests.helpers.archived_tasks import MadeTask, make_tasks, result
from tests.helpers.history import EMBEDDED, Databases, opened
from tests.helpers.redis_server import RedisServer
from tests.helpers.webserver import RecordedRun, WebServer
from tests.helpers.webserver import result as result_of_web

KEEPS_ALL = HistoryLimits(36500)


@pytest.fixture
def records(redis_url: str, history_url: str) -> Iterator[Records]:
    records = Records(redis_url, Archive(history_url, 5.0))
    yield records
    records.close()


@pytest.fixture
def archiver(redis_url: str, history_url: str) -> Iterator[Archiver]:
    archiver = Archiver(Store(redis_url), history_url, 0.0, KEEPS_ALL)
    archiver._stopped.wait = lambda timeout=None: False  # type: ignore[method-assign]  # without rests
    yield archiver
    archiver.close()


def archive_all(archiver: Archiver) -> None:
    while archiver.run_round():
        pass


def page(records: Records, query: str, before: int | None = None, limit: int = 100, **wanted: Any) -> FoundPage:
    parsed = search_words.parse(query)
    assert parsed is not None and records.archive is not None
    return records.archive.search(SearchFilter(parsed, **wanted), before, limit)


def found(records: Records, query: str, **wanted: Any) -> list[FoundTask]:
    return list(page(records, query, **wanted).tasks)


def ids(hits: list[FoundTask]) -> list[str]:
    return [hit.status.task_id for hit in hits]


def site(store: Store, playbook: str = "site.yml", **more: Any) -> MadeTask:
    return MadeTask(store, kind="playbook", about=About(playbook=playbook, inventory="prod"), **more)


def test_playbook_host_and_message_are_found_with_their_place(records: Records, archiver: Archiver) -> None:
    task = site(records, "roll/deploy_web.yml")
    message = {"msg": "non-zero return code", "stderr": "E: Unable to lock /var/lib/dpkg\nmore"}
    task.add(b"", result("web1.example.org", "ok"), result("db", "failed", result=message))
    failed = task.end(State.FAILED, 2)
    other = site(records, "other.yml").end()
    archive_all(archiver)
    [hit] = found(records, "deploy")
    assert hit.status == records.task(failed)
    assert [(place.field, place.text) for place in hit.places] == [("playbook", "roll/deploy_web.yml")]
    [hit] = found(records, "WEB1.example.org")
    assert [(place.field, place.text) for place in hit.places] == [("host", "web1.example.org")]
    [hit] = found(records, "unable lock")
    [place] = hit.places
    assert (place.field, place.host, place.seq) == ("message", "db", 2)
    assert "Unable to lock /var/lib/dpkg" in place.text
    assert [place.field for place in found(records, "deploy dpkg db")[0].places] == ["playbook", "message", "host"]
    assert ids(found(records, "yml")) == [other, failed]
    assert (
        found(records, "deploy other") == found(records, "web1 absent") == found(records, "dpkg", in_output=True) == []
    )


def test_output_is_found_by_lines_with_number_and_offset(records: Records, archiver: Archiver) -> None:
    task = site(records)
    lines = [f"line {number} of größe\n".encode() for number in range(20_000)]
    lines[7], lines[15_000] = b"a needle \xff here\n", b"another Needle, and <b>more</b>\n"
    for begin in range(0, len(lines), 1000):
        task.add(b"".join(lines[begin : begin + 1000]))
    task_id = task.end()
    archive_all(archiver)
    first, second = sorted(found(records, "needle", in_output=True), key=lambda hit: hit.places[0].line or 0)
    assert ids([first, second]) == [task_id] * 2
    for hit, number in ((first, 7), (second, 15_000)):
        [place] = hit.places
        assert (place.field, place.line, place.offset) == ("output", number + 1, len(b"".join(lines[:number])))
        assert place.text == lines[number].decode(errors="replace").rstrip("\n")
    assert len(found(records, "here needle", in_output=True)) == 1
    assert found(records, "needle größe", in_output=True) == [], "they stand in different lines"
    # A word is found wherever the output was cut into pieces.
    dice = random.Random(1)
    for number in (0, 19_999, *dice.sample(range(20_000), 30)):
        if number in (7, 15_000):
            continue
        [place] = found(records, f"line {number} of", in_output=True)[0].places
        assert place.line == number + 1


def test_pages_go_through_all_hits_once(records: Records, archiver: Archiver) -> None:
    tasks = [site(records, f"number{number % 3}.yml").end() for number in range(25)]
    archive_all(archiver)
    got: list[str] = []
    before = None
    while True:
        one = page(records, "number1", before, 2)
        got += ids(list(one.tasks))
        if (before := one.next_before) is None:
            break
    assert got == tasks[1::3][::-1]
    assert page(records, "number1", 0, 2) == FoundPage((), None)


def test_what_a_search_is_not_given_time_for_is_on_the_next_page(records: Records, archiver: Archiver) -> None:
    tasks = [site(records).end() for _ in range(5)]
    archive_all(archiver)
    query = search_words.parse("site")
    assert query is not None and records.archive is not None
    got, before, pages = [], None, 0
    while True:
        one = records.archive.search(SearchFilter(query), before, 100, give_up_at=0.0)
        got += ids(list(one.tasks))
        pages += 1
        if (before := one.next_before) is None:
            break
    assert got == tasks[::-1] and pages > 1


def test_colleagues_find_what_they_see_and_nobody_else_does(records: Records, archiver: Archiver) -> None:
    seen = Visibility(inventories=("/srv/prod",), entries=("group:ops", "user:eve"))
    task = site(records, user="lee", visibility=seen)
    task.add(b"a needle\n")
    of_lee = task.end()
    hidden = site(records, user="lee")
    hidden.add(b"a needle\n")
    of_lee_alone = hidden.end()
    archive_all(archiver)
    for in_output, query in ((False, "site"), (True, "needle")):
        assert ids(found(records, query, in_output=in_output)) == [of_lee_alone, of_lee]
        assert ids(found(records, query, user="lee", in_output=in_output)) == [of_lee_alone, of_lee]
        assert found(records, query, user="pat", in_output=in_output) == []
        for entries in (("group:ops",), ("group:other", "user:eve")):
            assert ids(found(records, query, user="pat", entries=entries, in_output=in_output)) == [of_lee]
        assert found(records, query, user="pat", entries=("user:lee",), in_output=in_output) == []


def test_retention_takes_the_words_with_the_text(
    records: Records, archiver: Archiver, redis_url: str, history_url: str
) -> None:
    task = site(records, "kept.yml")
    task.add(b"a needle\n", result("web1", "failed", result={"msg": "pointless"}))
    task.end(State.FAILED, 2)
    archive_all(archiver)
    assert found(records, "needle", in_output=True) and found(records, "pointless")
    age(history_url, days=8)
    pruner = Archiver(Store(redis_url), history_url, 0.0, HistoryLimits(365, output_days=7))
    archiver.close()
    pruner.run_round()
    assert found(records, "needle", in_output=True) == found(records, "pointless") == []
    assert found(records, "kept web1")
    assert counts(history_url) == {"search_records": 1, "search_pieces": 0}
    assert words(history_url, "needle") == words(history_url, "pointless") == 0 and words(history_url, "kept") == 1
    age(history_url, days=400)
    pruner._prune_at = 0.0
    pruner.run_round()
    assert found(records, "kept") == []
    assert counts(history_url) == {"search_records": 0, "search_pieces": 0} and words(history_url, "kept") == 0
    pruner.close()


def age(url: str, days: int) -> None:
    with opened(url) as database, database.writing() as connection:
        table = schema.tasks
        connection.execute(update(table).values(finished=table.c.finished - days * 86_400_000))


def counts(url: str) -> dict[str, int]:
    with opened(url) as database, database.reading() as connection:
        return {
            name: int(connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one())
            for name in ("search_records", "search_pieces")
        }


def words(url: str, word: str) -> int:
    """In how many rows of the two indexes a word is, whether or not there is a task to them."""
    count = 0
    with opened(url) as database, database.reading() as connection:
        for table in ("search_record_words", "search_output_words"):
            is_there = f"{table} MATCH :word" if database.is_sqlite else "words @@ CAST(:word AS tsquery)"
            statement = text(f"SELECT count(*) FROM {table} WHERE {is_there}")
            count += int(connection.execute(statement, {"word": word}).scalar_one())
    return count


def test_tasks_of_before_become_searchable_after_the_start(
    records: Records, archiver: Archiver, history_url: str
) -> None:
    made = make_tasks(records)
    task = site(records, "ancient.yml")
    task.add(b"a needle\n", result("web1", "failed", result={"msg": "pointless"}))
    made.append(task.end(State.FAILED, 2))
    archive_all(archiver)
    by_archiving = dump(records)
    with opened(history_url) as database, database.writing() as connection:
        keys = [key for (key,) in connection.execute(text("SELECT key FROM tasks"))]
        from_scratch(connection, keys)
    assert found(records, "ancient") == []
    count = 0
    while more := archiver.run_round():
        count += more
    assert count == len(made)
    assert dump(records) == by_archiving
    assert found(records, "ancient pointless web1") and found(records, "needle", in_output=True)


def test_what_an_older_worker_has_archived_meanwhile_is_noticed(
    records: Records, redis_url: str, archiver: Archiver, history_url: str
) -> None:
    site(records, "older.yml").end()
    archive_all(archiver)
    archiver.close()
    with opened(history_url) as database, database.writing() as connection:
        from_scratch(connection, [1])
        connection.execute(text("UPDATE search_backfill SET next_key = NULL"))
        connection.execute(text("UPDATE tasks SET summary_key = NULL"))
    assert found(records, "older") == []
    later = Archiver(Store(redis_url), history_url, 0.0, KEEPS_ALL)
    assert later.run_round() == 1
    assert len(found(records, "older")) == 1
    later.close()


def test_a_summary_stays_as_long_as_a_task_has_it(
    records: Records, archiver: Archiver, redis_url: str, history_url: str
) -> None:
    site(records, summary="dev: one").end()
    site(records, summary="dev: both").end()
    archive_all(archiver)
    age(history_url, days=400)
    site(records, summary="dev: both").end()
    archive_all(archiver)
    archiver.close()
    pruner = Archiver(Store(redis_url), history_url, 0.0, HistoryLimits(365))
    pruner.run_round()
    pruner.close()
    with opened(history_url) as database, database.reading() as connection:
        assert connection.execute(text("SELECT text FROM summaries")).scalars().all() == ["dev: both"]
    assert [len(records.search(ListFilter(words=words), None, 9).tasks) for words in ("BOTH", "one", "dev")] == [
        1,
        0,
        1,
    ]


def from_scratch(connection: Any, keys: list[int]) -> None:
    from flansible.history.search_index import SearchIndex

    SearchIndex(connection).remove(keys)
    connection.execute(text("UPDATE search_backfill SET next_key = :key"), {"key": max(keys)})


def dump(records: Records) -> list[Any]:
    queries = ("site1", "web1", "größe", "yml", "web2 site0")
    return [(query, found(records, query), found(records, query, in_output=True)) for query in queries]


ODD = [
    '"',
    "'",
    "x' OR 1=1 --",
    'needle" OR words:"x',
    "needle OR",
    "needle NEAR(a b)",
    "-needle",
    "^needle",
    "needle*",
    "words : needle",
    "{words} : needle",
    "needle & !x | y <-> z",
    "needle:*",
    "(needle",
    "needle\\",
    "\\' & x",
    "%needle%",
    "needle\0x",
    "\ud800needle",
    "NEEDLE AND AND",
    "é" * 300,
    "\U0001f600 needle",
    "ﬁ İ ß",
    "needle " * 42,
    " ".join("abcdefghij" * 10),
]


def test_an_odd_query_is_plain_text(records: Records, archiver: Archiver) -> None:
    task = site(records)
    task.add(b"a needle in the output, words x y z\n")
    task.end()
    archive_all(archiver)
    for query in ODD:
        if search_words.parse(query) is None:
            continue
        for in_output in (False, True):
            hits = found(records, query, in_output=in_output)
            assert bool(hits) == (in_output and query == "needle " * 42), (query, hits)


# Over HTTP


@pytest.fixture(scope="module")
def server(
    shared_redis: RedisServer, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "data").mkdir()
    databases.migrated("sqlite", folder / "data")
    running = WebServer(folder, shared_redis.url, before=EMBEDDED)
    with shared_redis.client() as client:
        client.flushall()
    store = Store(shared_redis.url)
    run = RecordedRun(store, "admin", kind="playbook", about=About(playbook="site.yml"))
    run.write(b"one\ntwo <b>needle</b>\n", result_of_web("web1", "failed", msg="it broke"))
    run.end(State.FAILED)
    mine = RecordedRun(store, "dev", kind="playbook", about=About(playbook="site.yml"))
    mine.write(b"a needle of dev\n")
    mine.end()
    archiver = Archiver(store, f"sqlite:///{folder}/data/history.sqlite3", 0.0, KEEPS_ALL)
    archive_all(archiver)
    archiver.close()
    yield running
    running.stop()


@pytest.fixture
def web(server: WebServer) -> Iterator[httpx.Client]:
    """Of admin. Two tasks are archived; the tests only read."""
    with server.client() as client:
        yield client


def test_the_api_finds_and_shows_only_what_the_user_sees(web: httpx.Client, server: WebServer) -> None:
    reply = web.get("/api/search", params={"q": "broke"}).json()
    assert reply["next_before"] is None
    [hit] = reply["hits"]
    assert hit["task"] == web.get(f"/api/ansibletaskstatus/{hit['task']['task_id']}").json()
    assert hit["places"] == [
        {"field": "message", "text": "it broke", "host": "web1", "seq": 1, "line": None, "offset": None}
    ]
    hits = web.get("/api/search", params={"q": "needle", "in": "output"}).json()["hits"]
    # In the order in which they were archived, which is any for tasks that end in the same second.
    [of_admin] = [hit for hit in hits if hit["task"]["user"] == "admin"]
    assert len(hits) == 2
    assert (of_admin["places"][0]["line"], of_admin["places"][0]["offset"]) == (2, 4)
    assert of_admin["places"][0]["text"] == "two <b>needle</b>"
    with server.client(("dev", "dev secret")) as dev:
        for query in ({"q": "needle", "in": "output"}, {"q": "site"}):
            assert [hit["task"]["user"] for hit in dev.get("/api/search", params=query).json()["hits"]] == ["dev"]
        assert dev.get("/api/search", params={"q": "broke"}).json()["hits"] == []
    first = web.get("/api/search", params={"q": "site", "limit": 1})
    assert len(first.json()["hits"]) == 1 and 'rel="next"' in first.headers["Link"]
    second = web.get("/api/search", params={"q": "site", "limit": 1, "before": first.json()["next_before"]}).json()
    [one], [other] = first.json()["hits"], second["hits"]
    assert {one["task"]["user"], other["task"]["user"]} == {"admin", "dev"}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "q"),
        ("q=", "q"),
        ("q=%22%27%2a", "q"),
        ("q=%00", "q"),
        ("q=" + "x" * 5000, "q"),
        ("q=x&in=all", "in"),
        ("q=x&in_=output", "in_"),
        ("q=x&limit=0", "limit"),
        ("q=x&before=-1", "before"),
        ("q=x&before=9999999999999999999", "before"),
    ],
)
def test_a_query_that_cannot_be_is_400_with_its_field(web: httpx.Client, query: str, field: str) -> None:
    reply = web.get(f"/api/search?{query}")
    assert reply.status_code == 400, reply.text
    assert [one["field"] for one in reply.json()["errors"]] == [field]


def test_an_odd_query_is_answered(web: httpx.Client) -> None:
    for query in ODD:
        for place in ("records", "output"):
            sent = {"q": query.encode("utf-8", "replace").decode(), "in": place}
            reply = web.get("/api/search", params=sent)
            assert reply.status_code in (200, 400), (query, reply.text)
            json.dumps(reply.json())


def test_without_a_database_a_search_is_503(redis_url: str, tmp_path: Path) -> None:
    running = WebServer(tmp_path, redis_url)
    try:
        with running.client() as client:
            reply = client.get("/api/search?q=x")
            assert (reply.status_code, reply.json()["code"]) == (503, "no_database")
    finally:
        running.stop()
