"""Fills a history database with tasks in the archiver's own form, many in a transaction.

Each has one to three of 100 hosts, about 2 kB of output and events before compression. The rows are made by two
processes and written by this one.
"""

from __future__ import annotations

import json
import random
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from sqlalchemy import Connection, insert, text

from flansible.history import encoding, host_summaries, schema, search_index
from flansible.history.database import Database
from flansible.history.host_results import HostResults
from flansible.history.host_summaries import HostEnd
from flansible.history.search_index import PIECES, SearchIndex, SearchText
from flansible.history.search_words import words_of
from flansible.history.summaries import digest_of
from flansible.models import About, AuthorizedRun, Step
from flansible.system.timestamps import from_milliseconds

USERS = [f"user{number}" for number in range(20)]
PLAYBOOKS = [f"team{number % 10}/site{number}.yml" for number in range(100)]
HOSTS = [f"web{number}.example.org" for number in range(100)]
INVENTORY = "inventories/prod"
NEEDLE = "needle"  # in the output of ten tasks, and in the failures of ten
RARE_CODE = 77  # of ten tasks
_PROCESSES = 2
_PER_BATCH, _BATCHES_AT_ONCE = 1000, 6
_LAST = 30_000  # tasks whose hosts are noted: all hosts of all users are among them
_APART = 20_000  # milliseconds between two tasks
_STEP = Step(program="ansible-playbook", argv=("--", "site.yml"), cwd="/srv/playbooks")
_TABLES = ("tasks", "output_chunks", "event_segments", "task_hosts", "search_records", "search_pieces")
Rows = dict[str, list[Any]]


def fill(database: Database, count: int) -> str:
    """Fills an empty database; returns the id of a task in the middle."""
    with database.writing() as connection:
        hosts = [{"key": key, "name": name, "inventory": INVENTORY} for key, name in enumerate(HOSTS, 1)]
        connection.execute(insert(schema.hosts), hosts)
        rows = [{"key": key, "digest": digest_of(one), "text": one} for key, one in enumerate(_summaries(), 1)]
        connection.execute(insert(schema.summaries), rows)
        scopes = [host_summaries.scope_key(connection, user, None) for user in USERS]
        assert scopes == list(range(1, len(USERS) + 1))  # as `_add_task` counts on
    if not database.is_sqlite:
        _run(database, "DROP INDEX search_record_words_words", "DROP INDEX search_output_words_words")
    for number, rows in enumerate(_batches(count), 1):
        with database.writing() as connection:
            _write(connection, rows)
            if number * _PER_BATCH > count - _LAST:
                _note_hosts(connection, rows)
        print(f"\r{number * _PER_BATCH:,} tasks", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if not database.is_sqlite:
        _run(database, "SELECT setval(pg_get_serial_sequence('scopes', 'key'), (SELECT max(key) FROM scopes))")
        for name in ("search_record_words", "search_output_words"):
            _run(database, f"CREATE INDEX {name}_words ON {name} USING gin (words) WITH (fastupdate = off)")
        _run(database, "SELECT setval(pg_get_serial_sequence('tasks', 'key'), (SELECT max(key) FROM tasks))", "ANALYZE")
        _run(database, "SELECT setval(pg_get_serial_sequence('hosts', 'key'), 100)")
        _run(database, "SELECT setval(pg_get_serial_sequence('summaries', 'key'), (SELECT max(key) FROM summaries))")
    return _task_id(count // 2)


def _run(database: Database, *statements: str) -> None:
    with database.writing() as connection:
        for statement in statements:
            connection.execute(text(statement))


def _batches(count: int) -> Iterator[Rows]:
    firsts = list(range(0, count, _PER_BATCH))
    # The last one has just ended; none is older than a year, after which it would be deleted.
    began = int(time.time() * 1000) - (count + 1) * _APART
    with ProcessPoolExecutor(_PROCESSES, mp_context=get_context("spawn")) as pool:
        for begin in range(0, len(firsts), _BATCHES_AT_ONCE):  # no more of them wait in memory
            some = firsts[begin : begin + _BATCHES_AT_ONCE]
            yield from pool.map(_batch, [(first, count, began) for first in some])


def _write(connection: Connection, rows: Rows) -> None:
    for name in _TABLES:
        connection.execute(insert(schema.metadata.tables[name]), rows[name])
    index = SearchIndex(connection)
    for name in ("search_record_words", "search_output_words"):
        index.add(name, rows[name])


def _note_hosts(connection: Connection, rows: Rows) -> None:
    """As the archiver does for each task; the last ones have all hosts and users."""
    finished = {row["key"]: row["finished"] for row in rows["tasks"]}
    for scope in range(1, len(USERS) + 1):
        ends = [
            HostEnd(row["host_key"], row["number"], finished[row["task_key"]], row["verdict"], row["changed"])
            for row in rows["task_hosts"]
            if row["scope_key"] == scope
        ]
        host_summaries.note(connection, scope, ends)


def _batch(what: tuple[int, int, int]) -> Rows:
    first, count, began = what
    rows: Rows = {name: [] for name in (*_TABLES, "search_record_words", "search_output_words")}
    chance = random.Random(first)
    for number in range(first, min(first + _PER_BATCH, count)):
        _add_task(rows, number, count, began + number * _APART, chance)
    return rows


def _summaries() -> list[str]:
    return [_summary(user, playbook) for user in USERS for playbook in PLAYBOOKS]


def _summary(user: str, playbook: str) -> str:
    return f"{user}: playbook {playbook} in /srv/playbooks"


def _task_id(number: int) -> str:
    return str(uuid.UUID(int=random.Random(f"task {number}").getrandbits(128), version=4))


def _add_task(rows: Rows, number: int, count: int, submitted: int, chance: random.Random) -> None:
    key = number + 1
    is_tenth = number % (count // 10) == 5
    user, playbook = chance.randrange(len(USERS)), chance.randrange(len(PLAYBOOKS))
    named = [HOSTS[place] for place in sorted(chance.sample(range(len(HOSTS)), chance.randint(1, 3)))]
    has_failed = is_tenth or chance.random() < 0.1
    output, events = _recordings(named, chance, has_failed, NEEDLE if is_tenth else "timeout")
    results = HostResults()
    results.add(1, events)
    hosts = list(results.in_order())
    about = About(playbook=PLAYBOOKS[playbook], inventory=INVENTORY)
    summary = _summary(USERS[user], PLAYBOOKS[playbook])
    run = AuthorizedRun(
        kind="playbook", user=USERS[user], summary=summary, steps=(_STEP,), about=about, request=_request(playbook)
    )
    counts = {"ok": len(events), "changed": 1, "failed": int(has_failed)}
    sizes = {"output_bytes": len(output), "colour_count": 0, "event_count": len(events), "stored_bytes": 2000}
    texts = {"user": USERS[user], "summary": summary, "state": "failed" if has_failed else "succeeded"}
    rows["tasks"].append(
        {
            **sizes,
            "key": key,
            "id": _task_id(number),
            "number": key,
            "username": texts["user"],
            "kind": "playbook",
            "state": texts["state"],
            "returncode": RARE_CODE if is_tenth else 2 if has_failed else 0,
            "changed": True,
            "description": "ansible-playbook ended with exit code 0",
            "summary": summary,
            "summary_key": user * len(PLAYBOOKS) + playbook + 1,
            "scope_key": user + 1,
            "attempt": 1,
            "playbook": PLAYBOOKS[playbook],
            "inventory": INVENTORY,
            "counts": json.dumps(counts),
            "host_count": len(hosts),
            "play_task_count": 2,
            "submitted": submitted,
            "finished": submitted + 5000,
            "submitted_at": from_milliseconds(submitted),
            "started_at": from_milliseconds(submitted + 10),
            "finished_at": from_milliseconds(submitted + 5000),
            "run": encoding.pack(run.model_dump_json().encode()),
            "archived": submitted + 35_000,
        }
    )
    chunk = {"task_key": key, "start": 0, "size": len(output), "data": encoding.pack(output)}
    rows["output_chunks"].append({**chunk, "marks": b"", "before": b""})
    segment = {"task_key": key, "first_seq": 1, "last_seq": len(events), "size": sum(map(len, events)), "verdicts": 3}
    rows["event_segments"].append({**segment, "data": encoding.pack(b"\n".join(events))})
    for place, host in enumerate(hosts):
        row = {"task_key": key, "position": place, "host_key": HOSTS.index(host.name) + 1, "number": key}
        row |= {
            "scope_key": user + 1,
            "verdict": host.verdict,
            "changed": bool(host.counts["changed"]),
            "counts": json.dumps(host.counts),
        }
        rows["task_hosts"].append({**row, "seqs": encoding.pack_numbers(host.seqs)})
    _add_search(rows, key, PLAYBOOKS[playbook], [host.name for host in hosts], output, events)


def _add_search(rows: Rows, key: int, playbook: str, hosts: list[str], output: bytes, events: list[bytes]) -> None:
    messages = [
        SearchText("message", event["result"]["msg"], event["host"], seq)
        for seq, event in enumerate(map(json.loads, events), 1)
        if event["verdict"] == "failed"
    ]
    texts = [SearchText("playbook", playbook), *messages, *(SearchText("host", host) for host in hosts)]
    rows["search_records"].append({"task_key": key, "data": search_index.pack(texts)})
    rows["search_record_words"].append((key, words_of("\n".join(one.text for one in texts))))
    rows["search_pieces"].append({"task_key": key, "piece": 0, "start": 0, "size": len(output), "first_line": 1})
    rows["search_output_words"].append((key * PIECES, words_of(output.decode())))


def _request(playbook: int) -> dict[str, Any]:
    return {"playbook_dir": ".", "playbook": PLAYBOOKS[playbook], "inventory": INVENTORY, "extra_vars": {"a": "b"}}


def _recordings(hosts: list[str], chance: random.Random, has_failed: bool, word: str) -> tuple[bytes, list[bytes]]:
    """Output and events of a play with two tasks, the second of which may fail on the first host."""
    lines = ["", "PLAY [Web servers] " + "*" * 60]
    events = []
    for task, module in (("Install the package", "apt"), ("Write the configuration", "template")):
        lines += ["", f"TASK [{task}] " + "*" * 60]
        for host in hosts:
            fails = has_failed and module == "template" and host == hosts[0]
            verdict = "failed" if fails else "changed" if module == "template" else "ok"
            digest = f"{chance.getrandbits(128):032x}"
            found: dict[str, Any] = {
                "changed": verdict == "changed",
                "checksum": digest,
                "dest": f"/etc/app/{host}.conf",
            }
            if fails:
                found["msg"] = f"could not write /etc/app: {word} after {chance.randrange(60)} s"
                lines.append(f"fatal: [{host}]: FAILED! => {json.dumps(found)}")
            else:
                lines.append(f"{verdict}: [{host}] => {digest}")
            event = {"event": "host_result", "time": "2026-11-30T00:00:00.000Z", "play": "Web servers", "task": task}
            event |= {"module": module, "host": host, "verdict": verdict, "duration_seconds": 0.3, "result": found}
            events.append(json.dumps({**event, "output_start": 0, "output_end": 100}).encode())
    lines += ["", "PLAY RECAP " + "*" * 70, *(f"{host} : ok=2 changed=1 unreachable=0 failed=0" for host in hosts)]
    return "\n".join([*lines, ""]).encode(), events
