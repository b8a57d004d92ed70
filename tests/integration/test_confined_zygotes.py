"""One sandbox a user, one zygote in it: what a user's projects share, and what no two users do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flansible.models import Confinement
from flansible.worker.fork_server import ForkServer
from tests.helpers.confined_runs import ConfinedPool, begin, played
from tests.helpers.process_tree import new_mark, sleeping
from tests.helpers.waiting import eventually, require_program

PROJECTS = ("a", "b", "c")
KILL_ALL = "for one in /proc/[0-9]*; do p=${one#/proc/}; [ $p -gt 1 ] && [ $p != $$ ] && kill -KILL $p; done; true"


@pytest.fixture
def place() -> Iterator[Path]:
    require_program("bwrap")
    path = Path(tempfile.mkdtemp(prefix="flansible-confined-"))
    for number, name in enumerate(PROJECTS):
        (path / "playbooks" / name).mkdir(parents=True)
        (path / "playbooks" / name / "ansible.cfg").write_text(f"[defaults]\nforks = {number + 3}\n")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def pool(place: Path) -> Iterator[ConfinedPool]:
    pool = ConfinedPool(place)
    yield pool
    pool.close()


def servers(pool: ConfinedPool) -> list[ForkServer]:
    return list(pool._servers.values())


def run(pool: ConfinedPool, place: Path, name: str, command: str = "echo fine") -> str:
    return played(pool, place, command, True, f"playbooks/{name}").text


def namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/mnt")


def test_a_users_projects_are_forked_from_one_zygote_in_one_sandbox(pool: ConfinedPool, place: Path) -> None:
    for name in PROJECTS:
        assert "<<fine>>" in run(pool, place, name)
    found = servers(pool)
    assert [server.was_forked for server in found] == [True] * 3
    assert len({server.host for server in found}) == 1 == len(pool.sandboxed())
    assert len({namespace(server.pid) for server in found} | {namespace(os.getpid())}) == 2
    assert [configuration.directory for configuration in pool._servers] == [
        str(place / "playbooks" / name) for name in PROJECTS
    ]


def test_each_project_has_its_own_configuration(pool: ConfinedPool, place: Path) -> None:
    for name in "abcba":
        shown = played(pool, place, "echo {{ ansible_forks }}", True, f"playbooks/{name}").text
        assert f"<<{PROJECTS.index(name) + 3}>>" in shown


def test_no_two_users_share_a_sandbox_or_a_zygote(pool: ConfinedPool, place: Path) -> None:
    run(pool, place, "a")
    [mine] = servers(pool)
    other = ConfinedPool(place, "ops")
    pool._sandbox, before = other._sandbox, pool._sandbox
    run(pool, place, "a")
    pool._sandbox = before
    run(pool, place, "a")
    assert len(servers(pool)) == 2
    [theirs] = [server for server in servers(pool) if server is not mine]
    assert theirs.host is not mine.host and theirs.host.principal == "ops" and mine.host.principal == "dev"
    for kind in ("mnt", "pid", "ipc"):
        one, two = (os.readlink(f"/proc/{server.pid}/ns/{kind}") for server in (mine, theirs))
        assert one != two


def test_other_limits_that_show_other_files_have_another_zygote(pool: ConfinedPool, place: Path) -> None:
    run(pool, place, "a")
    [first] = servers(pool)
    (place / "more").mkdir()
    pool.confine(Confinement(readable=(str(place / "more"),)))
    run(pool, place, "b")
    second = servers(pool)[-1]
    assert second.was_forked and second.host is not first.host


def test_a_user_who_kills_all_in_the_sandbox_has_a_new_one(pool: ConfinedPool, place: Path) -> None:
    run(pool, place, "a")
    run(pool, place, "b")
    [host] = pool.sandboxed()
    run(pool, place, "a", KILL_ALL)
    eventually(lambda: host.is_gone())
    for name in "ab":
        assert "<<fine>>" in run(pool, place, name)
    [again] = pool.sandboxed()
    assert again is not host and all(server.host is again for server in servers(pool))


def test_a_zygote_that_its_user_has_stopped_keeps_no_run_waiting_for_ever(pool: ConfinedPool, place: Path) -> None:
    run(pool, place, "a")
    [server] = servers(pool)
    zygote = psutil.Process(server.pid).parent()
    assert zygote is not None
    zygote.suspend()
    assert "<<fine>>" in run(pool, place, "b")
    assert [server.was_forked for server in servers(pool)] == [True, False]
    zygote.resume()


def test_what_one_project_has_left_does_not_keep_the_pool_from_ending_it_all(pool: ConfinedPool, place: Path) -> None:
    mark = new_mark()
    played(pool, place, f"setsid nohup sleep {mark} >/dev/null 2>&1 &", False, "playbooks/a")
    run(pool, place, "b")
    assert sleeping(mark)
    [host] = pool.sandboxed()
    pool.withdraw(host)
    assert "<<fine>>" in run(pool, place, "b")
    assert len(pool.sandboxed()) == 2 and sleeping(mark)
    pool.end(host)
    eventually(lambda: not sleeping(mark))
    assert "<<fine>>" in run(pool, place, "a")
    assert len(pool.sandboxed()) == 1


def test_a_run_goes_on_when_its_sandbox_is_withdrawn(pool: ConfinedPool, place: Path) -> None:
    mark = new_mark()
    with begin(pool, place, f"sleep {mark} & sleep 0.5; kill $!; echo done", True, "playbooks/a") as started:
        eventually(lambda: sleeping(mark))
        [host] = pool.sandboxed()
        pool.withdraw(host)
        started.wait()
        assert started.exited is not None and "<<done>>" in started.text
