"""The supervisor against a scripted runner: every way a run can end, every byte kept, whatever happens to the store."""

from __future__ import annotations

import copy
import errno
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from flansible.models import Secrets, State, Step
from flansible.store import ColourMark, Store
from flansible.system import memory
from flansible.wire import EMPTY_LIMIT, NO_HOSTS
from flansible.worker import lease_renewal, runner_process
from flansible.worker import supervisor as supervisor_module
from flansible.worker.outcome import Observed, outcome_of
from flansible.worker.step_descriptors import StepDescriptors
from flansible.worker.supervisor import UNCONFINED
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import GRACE_SECONDS, Ended, Worker, new_id
from tests.helpers.waiting import eventually
from tests.scripted_runner import pattern

MODULE = "tests.scripted_runner"
MEGABYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.fixture
def worker(store: Store) -> Iterator[Worker]:
    worker = Worker(store, MODULE)
    yield worker
    worker.close()


def test_a_run_that_prints_and_exits_succeeds_with_its_text(worker: Worker) -> None:
    ended = worker.run("say", "hello\nwörld\n")
    assert (ended.outcome.state, ended.outcome.returncode) == (State.SUCCEEDED, 0)
    assert ended.text == "hello\nwörld\n"
    assert [event["event"] for event in ended.events] == ["stats"]


def test_nothing_is_recorded_before_it_is_known_what_a_decrypted_key_must_hide(worker: Worker) -> None:
    line = "ZGVjcnlwdGVkIGxpbmUgb2YgdGhlIGtleQ"
    secrets = Secrets(private_key="x", private_key_passphrase="y" * 9)
    step = Step(program="ansible", argv=("print_key", f"{line}\n", line), cwd="/")
    ended = worker.run_steps(step, secrets=secrets)
    assert (ended.outcome.state, ended.text) == (State.SUCCEEDED, "*" * len(line) + "\n")
    quiet = Step(program="ansible", argv=("say", "text without a key\n"), cwd="/")
    assert worker.run_steps(quiet, secrets=secrets).text == "text without a key\n"


def test_a_run_has_nothing_masked_but_a_key_that_it_was_given(worker: Worker) -> None:
    line = "ZGVjcnlwdGVkIGxpbmUgb2YgdGhlIGtleQ"
    ended = worker.run("print_what_it_hides", line)
    assert ended.text == line, ended


def test_a_run_with_stored_secrets_that_would_not_be_confined_here_is_refused(worker: Worker) -> None:
    """What a web server elsewhere has accepted, a worker without bubblewrap does not run."""
    step = Step(program="ansible", argv=("say", "hello"), cwd="/")
    assert worker.run_steps(step, credentials=("web-vault",)).outcome.description == UNCONFINED
    assert worker.run_steps(step).outcome.state is State.SUCCEEDED


def test_a_run_that_ends_just_as_its_keeper_is_sent_a_new_deadline_is_not_lost(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel takes nothing any more then, and still has the keeper's last words."""
    later = property(lambda lease: lease_renewal.now() + 50, lambda lease, value: None)
    monkeypatch.setattr(lease_renewal.Lease, "stop_at", later, raising=False)
    monkeypatch.setattr("flansible.worker.supervisor._LEASE_FRAME_SECONDS", 0.0)
    worker.lease_seconds = 60
    outcomes = [worker.run("say", "hello\n").outcome for _ in range(100)]
    assert {outcome.state for outcome in outcomes} == {State.SUCCEEDED}, outcomes


@pytest.mark.parametrize("code", [1, 2, 4, 99, 250, 255])
def test_an_exit_code_that_is_not_zero_fails_with_that_code(worker: Worker, code: int) -> None:
    ended = worker.run("say", "no\n", str(code))
    assert (ended.outcome.state, ended.outcome.returncode) == (State.FAILED, code)
    assert str(code) in ended.outcome.description


def test_a_run_that_is_ended_while_it_prints_in_a_colour_leaves_no_colour_open(worker: Worker) -> None:
    task_id = new_id()
    worker.run_steps(Step(program="ansible", argv=("in_colour", "red"), cwd="/"), task_id=task_id)
    assert worker.store.colours(task_id, 0, 9) == [ColourMark(0, "0;31"), ColourMark(3, "0")]


def test_output_without_a_line_end_is_kept(worker: Worker) -> None:
    assert worker.run("say", "no line end").text == "no line end"


def test_a_run_that_prints_nothing_has_no_output(worker: Worker) -> None:
    assert worker.run("say", "").output == b""


def test_what_is_still_in_the_pipes_at_the_end_is_read(worker: Worker) -> None:
    for _ in range(10):
        ended = worker.run("both", "last words")
        assert ended.outcome.state is State.SUCCEEDED
        assert ended.text == "last words"
        assert [event["event"] for event in ended.events] == ["play_start", "stats"]


def test_twenty_megabytes_are_stored_exactly(worker: Worker) -> None:
    ended = worker.run("flood", str(20 * MEGABYTE))
    assert ended.outcome.state is State.SUCCEEDED
    assert ended.output == pattern(20 * MEGABYTE)


def test_events_are_numbered_without_a_gap_and_know_their_output(worker: Worker) -> None:
    ended = worker.run("count", "3000")
    results = ended.events[:-1]
    assert [event["seq"] for event in ended.events] == list(range(1, 3002))
    assert [event["result"]["index"] for event in results] == list(range(3000))
    lines = ended.output.splitlines(keepends=True)
    ranges = [(event["output_start"], event["output_end"]) for event in results]
    assert [ended.output[start:end] for start, end in ranges] == lines
    assert ended.events[-1]["output_end"] <= len(ended.output)


def test_events_that_arrive_in_pieces_are_whole(worker: Worker) -> None:
    ended = worker.run("pieces", "20")
    assert [event["result"]["index"] for event in ended.events[:-1]] == [*range(20)]


def test_an_event_larger_than_any_pipe_is_whole(worker: Worker) -> None:
    ended = worker.run("big_event", str(3 * MEGABYTE))
    assert ended.outcome.state is State.SUCCEEDED
    assert len(ended.events[0]["result"]["text"]) == 3 * MEGABYTE


@pytest.mark.parametrize(
    ("size", "state", "most"), [(4 * MEGABYTE, State.SUCCEEDED, 250), (30 * MEGABYTE, State.ERROR, 60)]
)
def test_an_event_made_to_fill_the_memory_fills_little_of_it(
    size: int, state: State, most: int, worker: Worker
) -> None:
    """4 MiB are the most that the runner sends."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _most_memory()
    outcome = worker.run("nested_event", str(size)).outcome
    used = (_most_memory() - before) // MEGABYTE
    assert outcome.state is state, outcome
    assert used < most


def _most_memory() -> int:
    """The most that this process has had since 5 was written to its clear_refs."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_output_and_events_of_several_steps_follow_each_other(worker: Worker) -> None:
    first = Step(program="git", argv=("say", "pulled\n"), cwd="/")
    second = Step(program="ansible", argv=("count", "3"), cwd="/")
    ended = worker.run_steps(first, second)
    assert ended.text == "pulled\nline 0\nline 1\nline 2\n"
    assert [event["seq"] for event in ended.events] == list(range(1, len(ended.events) + 1))
    results = [event for event in ended.events if event["event"] == "host_result"]
    assert [event["output_end"] for event in results] == [14, 21, 28]


def test_a_step_that_fails_is_the_last(worker: Worker) -> None:
    first = Step(program="git", argv=("say", "no remote\n", "128"), cwd="/")
    ended = worker.run_steps(first, Step(program="ansible", argv=("say", "never"), cwd="/"))
    assert (ended.outcome.state, ended.outcome.returncode, ended.text) == (State.FAILED, 128, "no remote\n")
    assert "git ended with exit code 128" in ended.outcome.description


def test_a_run_that_hangs_is_ended_when_its_time_is_up(worker: Worker) -> None:
    worker.timeout_seconds = 0.5
    ended = worker.run("hang")
    assert ended.outcome.state is State.TIMED_OUT
    assert "0.5 seconds" in ended.outcome.description and "3 processes" in ended.outcome.description
    assert ended.text == f"hanging\ngrace {GRACE_SECONDS:g}\n"
    assert 0.5 <= ended.seconds < 5


def test_the_deadline_is_of_the_whole_run_not_of_each_step(worker: Worker) -> None:
    worker.timeout_seconds = 1
    steps = [Step(program="ansible", argv=("finish_first", "0"), cwd="/")] * 3
    ended = worker.run_steps(*steps)
    assert ended.seconds < 5


def test_a_run_that_ends_by_itself_just_then_keeps_its_own_result(worker: Worker) -> None:
    worker.timeout_seconds = 0.2
    for code, state in (("0", State.SUCCEEDED), ("2", State.FAILED)):
        ended = worker.run("finish_first", code)
        assert (ended.outcome.state, ended.text) == (state, "hanging\ndone\n")


def test_a_keeper_that_does_not_obey_is_given_up_and_loses_its_channel(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing stuck: whatever is wrong with the keeper, the task ends, and the channel's end is the last order."""
    monkeypatch.setattr(supervisor_module, "_KEEPER_SECONDS", 0.3)
    worker.timeout_seconds = 0.3
    witness = tmp_path / "witness"
    ended = worker.run("ignore", str(witness))
    assert ended.outcome.state is State.TIMED_OUT
    assert ended.text == "ignoring\n"
    assert ended.seconds < 5
    eventually(witness.exists)


def test_a_timeout_longer_than_poll_can_wait_is_no_fault(worker: Worker) -> None:
    """poll(2) takes milliseconds in an int: 25 days are too many."""
    worker.timeout_seconds = 366 * 86400.0
    assert worker.run("say", "fine").outcome.state is State.SUCCEEDED


def test_a_keeper_that_dies_is_a_lost_run_with_all_it_had_printed(worker: Worker) -> None:
    ended = worker.run("vanish", "half a li")
    assert (ended.outcome.state, ended.outcome.returncode) == (State.LOST, None)
    assert ended.text == "half a li"
    assert worker.run("half").outcome.state is State.LOST


def test_a_run_that_the_machine_denies_is_an_error_with_the_cause(worker: Worker) -> None:
    ended = worker.run("deny", "no space left \udcff" + "x" * 10_000)
    assert ended.outcome.state is State.ERROR
    assert ended.outcome.description.startswith("no space left ?xxx") and len(ended.outcome.description) == 4096
    assert worker.run("say", "fine").outcome.state is State.SUCCEEDED


def test_a_worker_without_descriptors_fails_and_loses_none(worker: Worker) -> None:
    worker.run("say", "warm")
    before, limits = os.listdir("/proc/self/fd"), resource.getrlimit(resource.RLIMIT_NOFILE)
    highest, denied = max(map(int, before)), 0
    for spare in range(6):
        kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest + 1 - len(before) + 1)]  # no gaps
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(kept) + 1 + spare, limits[1]))
        try:
            StepDescriptors.open()
        except OSError as error:
            assert error.errno == errno.EMFILE
            denied += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for descriptor in kept:
                os.close(descriptor)
        assert os.listdir("/proc/self/fd") == before
    assert denied == 6
    assert worker.run("say", "fine").outcome.state is State.SUCCEEDED


def test_a_keeper_that_talks_nonsense_is_a_lost_run(worker: Worker) -> None:
    assert worker.run("babble").outcome.state is State.LOST


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_run_killed_by_somebody_is_lost_and_the_signal_named(worker: Worker, number: signal.Signals) -> None:
    ended = worker.run("killed", str(int(number)))
    assert (ended.outcome.state, ended.outcome.returncode) == (State.LOST, None)
    assert number.name in ended.outcome.description
    assert ended.text == "half a li"


def test_garbage_on_the_events_is_an_error_of_ours_and_what_came_before_is_kept(worker: Worker) -> None:
    ended = worker.run("garbage")
    assert ended.outcome.state is State.ERROR
    assert "events cannot be read" in ended.outcome.description
    assert [event["event"] for event in ended.events] == ["task_start"]
    assert ended.text == "fine\n"


def test_garbage_without_end_does_not_hold_the_run(worker: Worker) -> None:
    """Broken events are discarded, but still read: the run must not block on a full pipe."""
    worker.timeout_seconds = 15
    ended = worker.run("garbage", str(MEGABYTE))
    assert ended.outcome.state is State.ERROR
    assert ended.seconds < 10


def test_frames_with_nonsense_in_them_are_an_error_of_ours(worker: Worker) -> None:
    assert worker.run("lie").outcome.state is State.ERROR


def test_a_result_nested_too_deeply_is_no_fault_inside_flansible(worker: Worker) -> None:
    assert worker.run("nest").outcome.state in (State.ERROR, State.SUCCEEDED)


def test_exit_code_zero_without_an_end_is_no_success(worker: Worker) -> None:
    ended = worker.run("no_end")
    assert (ended.outcome.state, ended.outcome.returncode) == (State.ERROR, 0)
    assert ended.text == "text\n"


def test_a_run_that_executed_nothing_because_something_broke_is_no_success(worker: Worker) -> None:
    ended = worker.run("broken", "no worker could be started")
    assert ended.outcome.state is State.ERROR
    assert "no worker could be started" in ended.outcome.description


def test_a_child_that_holds_the_pipe_does_not_hold_the_task(worker: Worker, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    try:
        ended = worker.run("leave_child", str(pid_file))
        assert ended.outcome.state is State.SUCCEEDED
        assert "parent\n" in ended.text
        assert ended.seconds < 5
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_runs_inherit_nothing_but_their_own_descriptors(worker: Worker, background: ThreadPoolExecutor) -> None:
    neighbours = [background.submit(worker.run, "flood", str(MEGABYTE)) for _ in range(3)]
    assert worker.run("descriptors").text == "[]"
    assert all(item.result().outcome.state is State.SUCCEEDED for item in neighbours)


def test_runs_do_not_inherit_the_services_own_settings(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may hold passwords, and a shell would not give them to Ansible."""
    monkeypatch.setenv("FLANSIBLE_CELERY_BROKER_URL", "redis://:secret@host")
    monkeypatch.setenv("CELERY_LOG_LEVEL", "20")
    monkeypatch.setenv("HTTP_PROXY_OF_A_USER", "kept")
    names = worker.run("environment").text.split()
    assert "HTTP_PROXY_OF_A_USER" in names
    assert [name for name in names if name.startswith(("FLANSIBLE_", "CELERY_"))] == []


def test_runs_side_by_side_never_mix(worker: Worker, background: ThreadPoolExecutor) -> None:
    texts = [f"run {number}\n" * 2000 for number in range(16)]
    running = [background.submit(worker.run, "say", text) for text in texts]
    assert [item.result().text for item in running] == texts


# The fork server.


def directory_with(tmp_path: Path, script: str, name: str = "d") -> str:
    """A directory with its own configuration, so that the fork server starts in it."""
    directory = tmp_path / name
    directory.mkdir(mode=0o755)
    (directory / "ansible.cfg").write_text(script)
    return str(directory)


def test_a_fork_server_that_dies_before_it_is_ready_gives_its_text_and_exit_code(
    worker: Worker, tmp_path: Path
) -> None:
    ended = worker.run("say", "never", cwd=directory_with(tmp_path, "die"))
    assert (ended.outcome.state, ended.outcome.returncode) == (State.FAILED, 5)
    assert ended.text == "ERROR: this configuration is broken\n"


@pytest.mark.parametrize("script", ["garbage", "silent", "deaf"])
def test_a_fork_server_that_never_gets_ready_holds_nobody_for_ever(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: ThreadPoolExecutor, script: str
) -> None:
    monkeypatch.setattr(runner_process, "START_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(runner_process, "EXIT_SECONDS", 0.5)
    running = background.submit(worker.run, "say", "never", cwd=directory_with(tmp_path, script))
    ended = running.result(10)
    assert ended.outcome.state is State.ERROR
    assert "before it was ready" in ended.outcome.description


def test_a_directory_that_is_gone_ends_the_task_with_an_answer(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A relative path makes the directory part of the configuration.
    monkeypatch.setenv("ANSIBLE_ROLES_PATH", "roles")
    ended = worker.run("say", "never", cwd=str(tmp_path / "gone"))
    assert ended.outcome.state is State.ERROR
    assert str(tmp_path / "gone") in ended.outcome.description


def test_equal_configurations_share_a_fork_server_and_others_do_not(worker: Worker, tmp_path: Path) -> None:
    own = directory_with(tmp_path, "")
    servers = [worker.run("where", cwd=cwd).text.splitlines()[1] for cwd in ("/", str(tmp_path), own, "/", own)]
    assert servers[0] == servers[1] == servers[3]
    assert servers[2] == servers[4] != servers[0]


def test_an_edited_configuration_gets_a_new_fork_server(worker: Worker, tmp_path: Path) -> None:
    own = directory_with(tmp_path, "")
    first = worker.run("where", cwd=own).text.splitlines()[1]
    Path(own, "ansible.cfg").write_text("edited")
    second = worker.run("where", cwd=own).text.splitlines()[1]
    assert first != second
    assert not psutil.pid_exists(int(first))


def test_only_so_many_fork_servers_are_kept_and_the_longest_unused_goes(worker: Worker, tmp_path: Path) -> None:
    places = [directory_with(tmp_path, "", name) for name in "abc"]

    def server(place: str) -> int:
        return int(worker.run("where", cwd=place).text.splitlines()[1])

    a, b = server(places[0]), server(places[1])
    assert server(places[0]) == a
    c = server(places[2])
    assert (psutil.pid_exists(a), psutil.pid_exists(b), psutil.pid_exists(c)) == (True, False, True)


def test_with_little_memory_a_new_fork_server_takes_the_place_of_another(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.fork_servers._limit = 10
    places = [directory_with(tmp_path, "", name) for name in "abcd"]
    for place in places[:2]:
        worker.run("where", cwd=place)
    monkeypatch.setattr(memory, "available_share", lambda: 0.05)
    for place in places[2:]:
        worker.run("where", cwd=place)
    assert [key.directory for key in worker.fork_servers._servers] == places[2:]


def test_a_dropped_fork_server_does_not_touch_the_run_it_has(
    worker: Worker, tmp_path: Path, background: ThreadPoolExecutor
) -> None:
    places = [directory_with(tmp_path, "", name) for name in "abc"]
    task_id = new_id()
    step = Step(program="ansible", argv=("finish_first", "0"), cwd=places[0])
    worker.timeout_seconds = 3
    running = background.submit(worker.run_steps, step, task_id=task_id)
    eventually(lambda: worker.output_of(task_id) == b"hanging\n")
    for place in places[1:]:
        worker.run("say", "", cwd=place)
    assert running.result(10).outcome.state is State.SUCCEEDED


def test_a_fork_server_that_was_killed_is_replaced_and_its_run_goes_on(worker: Worker) -> None:
    ended = worker.run("kill_server")
    assert (ended.outcome.state, ended.text) == (State.SUCCEEDED, "went on\n")
    eventually(lambda: not any(server.alive for server in worker.fork_servers._servers.values()))
    for _ in range(3):
        assert worker.run("say", "again").outcome.state is State.SUCCEEDED


def test_closing_ends_every_fork_server(worker: Worker) -> None:
    server = int(worker.run("where").text.splitlines()[1])
    worker.fork_servers.close()
    assert not psutil.pid_exists(server)


# The worker is being stopped.


def test_a_shutdown_ends_the_run_as_lost_and_says_why(worker: Worker, background: ThreadPoolExecutor) -> None:
    task_id = new_id()
    running = background.submit(worker.run_steps, Step(program="ansible", argv=("hang",), cwd="/"), task_id=task_id)
    eventually(lambda: worker.output_of(task_id))
    began = time.monotonic()
    worker.shutdown.begin(0.3)
    ended = running.result(10)
    assert 0.25 < time.monotonic() - began < 5
    assert ended.outcome.state is State.LOST
    assert "the worker was stopped" in ended.outcome.description


def test_a_run_that_ends_within_the_drain_time_keeps_its_result(worker: Worker) -> None:
    worker.shutdown.begin(30)
    ended = worker.run("say", "in time")
    assert (ended.outcome.state, ended.text) == (State.SUCCEEDED, "in time")
    assert ended.seconds < 5


def test_a_second_order_to_stop_can_only_hurry(worker: Worker, background: ThreadPoolExecutor) -> None:
    task_id = new_id()
    running = background.submit(worker.run_steps, Step(program="ansible", argv=("hang",), cwd="/"), task_id=task_id)
    eventually(lambda: worker.output_of(task_id))
    worker.shutdown.begin(60)
    worker.shutdown.begin(0)
    worker.shutdown.begin(60)
    assert running.result(10).outcome.state is State.LOST


def test_a_task_that_is_over_in_the_store_has_its_run_ended(worker: Worker, background: ThreadPoolExecutor) -> None:
    """Another process has made it final: to continue would change hosts without a record."""
    task_id = new_id()
    running = background.submit(worker.run_steps, Step(program="ansible", argv=("endless",), cwd="/"), task_id=task_id)
    eventually(lambda: worker.output_of(task_id))
    worker.store.settle(task_id, State.LOST, "somebody else", None)
    kept = worker.output_of(task_id)
    assert running.result(10).outcome.state is State.CANCELED
    assert worker.output_of(task_id) == kept


# The store is away while the run goes on.


@pytest.fixture
def fragile(own_redis: RedisServer) -> Iterator[Worker]:
    """A worker whose Redis the test can take away."""
    store = Store(own_redis.url)
    worker = Worker(store, MODULE)
    yield worker
    worker.close()
    store.close()


def begun(worker: Worker, pool: ThreadPoolExecutor, *argv: str) -> tuple[str, Future[Ended]]:
    """A run that has printed something, and its task's id."""
    task_id = new_id()
    running = pool.submit(worker.run_steps, Step(program="ansible", argv=argv, cwd="/"), task_id=task_id)
    eventually(lambda: worker.output_of(task_id))
    return task_id, running


def test_a_store_that_dies_during_the_run_gets_everything_once_it_is_back(
    fragile: Worker, own_redis: RedisServer, background: ThreadPoolExecutor
) -> None:
    _, running = begun(fragile, background, "count", "40000")
    own_redis.kill()
    time_away = threading.Event()
    time_away.wait(1)
    own_redis.start()
    ended = running.result(60)
    assert ended.outcome.state is State.SUCCEEDED
    assert ended.output == b"".join(b"line %d\n" % index for index in range(40000))
    assert [event["seq"] for event in ended.events] == list(range(1, 40002))
    assert [event["result"]["index"] for event in ended.events[:-1]] == list(range(40000))


def test_a_store_that_dies_again_and_again_still_gets_everything_once(
    fragile: Worker, own_redis: RedisServer, background: ThreadPoolExecutor
) -> None:
    _, running = begun(fragile, background, "flood", str(30 * MEGABYTE))
    for _ in range(4):
        own_redis.kill()
        own_redis.start()
    assert running.result(60).output == pattern(30 * MEGABYTE)


def test_a_store_that_hangs_for_a_while_gets_everything_once(
    fragile: Worker, own_redis: RedisServer, background: ThreadPoolExecutor
) -> None:
    _, running = begun(fragile, background, "count", "25000")
    own_redis.freeze()
    time_away = threading.Event()
    time_away.wait(1.5)
    own_redis.thaw()
    ended = running.result(60)
    assert [event["seq"] for event in ended.events] == list(range(1, 25002))
    assert ended.output == b"".join(b"line %d\n" % index for index in range(25000))


def test_without_a_store_the_run_goes_on_and_memory_stays_bounded(
    fragile: Worker, own_redis: RedisServer, background: ThreadPoolExecutor, tmp_path: Path
) -> None:
    """What memory does not hold waits on disk."""
    fragile.memory_bytes = MEGABYTE
    done = tmp_path / "done"
    _, running = begun(fragile, background, "flood_and_tell", str(60 * MEGABYTE), str(done))
    own_redis.kill()
    before = psutil.Process().memory_info().rss
    most = 0

    def it_has_ended() -> bool:
        nonlocal most
        most = max(most, psutil.Process().memory_info().rss - before)
        return done.exists()

    eventually(it_has_ended, 20)
    assert not running.done()
    assert most < 12 * MEGABYTE
    own_redis.start()
    assert running.result(60).output == pattern(60 * MEGABYTE)


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_without_a_store_the_time_still_runs_out(
    fragile: Worker, own_redis: RedisServer, background: ThreadPoolExecutor, how: str
) -> None:
    fragile.timeout_seconds = 0.6
    fragile.memory_bytes = MEGABYTE
    task_id = new_id()
    running = background.submit(fragile.run_steps, Step(program="ansible", argv=("endless",), cwd="/"), task_id=task_id)
    eventually(lambda: fragile.output_of(task_id))
    own_redis.kill() if how == "kill" else own_redis.freeze()
    threading.Event().wait(3)
    own_redis.start() if how == "kill" else own_redis.thaw()
    ended = running.result(30)
    assert ended.outcome.state is State.TIMED_OUT
    assert ended.seconds < 3, f"ended {ended.seconds:.1f} s after its start"


# The table.


def seen(**changes: Any) -> Observed:
    return Observed(**changes)


def exited(returncode: int | None = 0, number: int | None = None, stopped: int = 0) -> dict[str, Any]:
    return {"type": "exited", "returncode": returncode, "signal": number, "stopped": [], "stopped_count": stopped}


END = {"returncode": 0, "broken": None, "stats": {}, "custom_stats": {}}
BROKEN = {**END, "broken": "nothing was executed"}
T, L, C = State.TIMED_OUT, State.LOST, State.CANCELED

VERDICTS: dict[str, tuple[dict[str, Any], State, int | None, str]] = {
    # what was seen -> state, exit code, a word of the description
    "all is well": ({"exited": exited(), "end": END}, State.SUCCEEDED, 0, "exit code 0"),
    "no hosts": (
        {"exited": exited(), "end": {**END, "warning": NO_HOSTS}},
        State.SUCCEEDED,
        0,
        "code 0: no hosts matched",
    ),
    "no hosts, with a code": (
        {"exited": exited(2), "end": {**END, "warning": NO_HOSTS}},
        State.FAILED,
        2,
        "hosts failed",
    ),
    "Ansible said no": ({"exited": exited(2), "end": END}, State.FAILED, 2, "hosts failed"),
    "a limit without hosts": (
        {"exited": exited(1), "end": {**END, "reason": EMPTY_LIMIT}},
        State.FAILED,
        1,
        "code 1: the limit leaves no hosts",
    ),
    "unreachable": ({"exited": exited(4), "end": END}, State.FAILED, 4, "unreachable"),
    "bad options": ({"exited": exited(5), "end": END}, State.FAILED, 5, "options"),
    "an unknown code": ({"exited": exited(77), "end": END}, State.FAILED, 77, "77"),
    "failed without an end": ({"exited": exited(1)}, State.FAILED, 1, "1"),
    "zero without an end": ({"exited": exited()}, State.ERROR, 0, "did not report"),
    "executed nothing": ({"exited": exited(), "end": BROKEN}, State.ERROR, 0, "nothing was executed"),
    "executed nothing, with a code": ({"exited": exited(1), "end": BROKEN}, State.ERROR, 1, "nothing was executed"),
    "broken events": ({"exited": exited(), "fault": "events"}, State.ERROR, 0, "events"),
    "broken events, with an end": ({"exited": exited(), "end": END, "fault": "events"}, State.ERROR, 0, "events"),
    "killed": ({"exited": exited(None, 9)}, State.LOST, None, "SIGKILL"),
    "killed after its end": ({"exited": exited(None, 11), "end": END}, State.LOST, None, "SIGSEGV"),
    "the keeper died": ({}, State.LOST, None, "died"),
    "the keeper died after the end": ({"end": END}, State.LOST, None, "died"),
    "timed out": ({"stop_reason": T, "exited": exited(None, 15, 4)}, T, None, "4 processes"),
    "timed out by KILL": ({"stop_reason": T, "exited": exited(None, 9, 4)}, T, None, "4 processes"),
    "timed out, its handler gave a code": ({"stop_reason": T, "exited": exited(143)}, T, 143, "CELERY_TASK_TIMEOUT"),
    "timed out, code zero, no end": ({"stop_reason": T, "exited": exited(0)}, T, 0, "CELERY_TASK_TIMEOUT"),
    "timed out, but it was done": ({"stop_reason": T, "exited": exited(), "end": END}, State.SUCCEEDED, 0, "0"),
    "timed out, but it had failed": ({"stop_reason": T, "exited": exited(2), "end": END}, State.FAILED, 2, "2"),
    "timed out, and the keeper died": ({"stop_reason": T}, T, None, "ended"),
    "the worker stopped": ({"stop_reason": L, "exited": exited(None, 15)}, L, None, "worker was stopped"),
    "the worker stopped, but it was done": (
        {"stop_reason": L, "exited": exited(), "end": END},
        State.SUCCEEDED,
        0,
        "0",
    ),
    "canceled": ({"stop_reason": C, "exited": exited(None, 15, 1), "canceled_by": "dev"}, C, None, "dev"),
    "canceled, but it was done": ({"stop_reason": C, "exited": exited(), "end": END}, State.SUCCEEDED, 0, "0"),
}


@pytest.mark.parametrize(("given", "state", "code", "word"), VERDICTS.values(), ids=VERDICTS)
def test_what_was_seen_decides_how_it_ended(given: dict[str, Any], state: State, code: int | None, word: str) -> None:
    step = Step(program="ansible", argv=(), cwd="/")
    outcome = outcome_of(step, seen(**copy.deepcopy(given)), "60 seconds (CELERY_TASK_TIMEOUT)")
    assert (outcome.state, outcome.returncode) == (state, code)
    assert word in outcome.description
    warning = NO_HOSTS if word.endswith(NO_HOSTS) else None
    assert outcome.warning == warning


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ({"exited": exited()}, State.SUCCEEDED),
        ({"exited": exited(1)}, State.FAILED),
        ({"exited": exited(None, 9)}, State.LOST),
        ({"stop_reason": T, "exited": exited(0)}, State.SUCCEEDED),
        ({"stop_reason": T, "exited": exited(None, 15)}, T),
        ({}, State.LOST),
    ],
)
def test_git_has_no_end_of_its_own_to_send(given: dict[str, Any], state: State) -> None:
    assert outcome_of(Step(program="git", argv=(), cwd="/"), seen(**given), "60 seconds").state is state


def test_no_combination_without_an_executed_end_is_a_success() -> None:
    """Promise 3 over the whole table: SUCCEEDED needs exit code 0, the end, nothing broken, no fault."""
    step = Step(program="ansible-playbook", argv=(), cwd="/")
    choices: dict[str, list[Any]] = {
        "exited": [None, exited(0), exited(1), exited(None, 9)],
        "end": [None, END, BROKEN],
        "fault": [None, "events"],
        "stop_reason": [None, T, L, C],
    }
    for values in product_of(choices):
        good = (values["exited"], values["end"], values["fault"]) == (exited(0), END, None)
        assert (outcome_of(step, seen(**values), "60 seconds").state is State.SUCCEEDED) is good


def product_of(choices: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    if not choices:
        yield {}
        return
    name, *_ = choices
    rest = {key: value for key, value in choices.items() if key != name}
    for value in choices[name]:
        for tail in product_of(rest):
            yield {name: value, **tail}
