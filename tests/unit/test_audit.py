"""The audit log: its lines, its chain, and what `flansible audit verify` finds."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import multiprocessing
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flansible.audit import log as audit_log
from flansible.audit import verify as audit_verify
from flansible.audit.log import Audit, AuditEvent, head_path
from flansible.audit.verify import Verified, Wrong
from flansible.errors import AuditUnavailable, ConfigurationError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "audit.log"


@pytest.fixture
def log(path: Path) -> Audit:
    return Audit(path, path.parent / "secret.key")


def fill(log: Audit, count: int = 5) -> list[bytes]:
    for number in range(count):
        log.write(AuditEvent("submission", user="dev", what=f"number {number}"))
    return lines(log)


def lines(log: Audit) -> list[bytes]:
    return log.path.read_bytes().splitlines(keepends=True)


def verify(log: Audit, *paths: Path, is_partial: bool = False) -> Verified | Wrong:
    key = audit_verify.read_key(log.path.parent / "secret.key")
    return audit_verify.verify(list(paths) or [log.path], log.path, key, is_partial)


def wrong(log: Audit, *paths: Path) -> Wrong:
    found = verify(log, *paths)
    assert isinstance(found, Wrong), found
    return found


def test_a_line_says_who_did_what(log: Audit) -> None:
    log.write(
        AuditEvent("submission", "dev", "10.0.0.1", "POST /api/git", "dev: git", "allowed", request_id="r", task_id="t")
    )
    [line] = lines(log)
    record = json.loads(line)
    assert list(record) == (
        ["time", "event", "user", "address", "request", "what", "outcome", "request_id", "task_id"]
        + ["seq", "prev", "mac"]
    )
    assert (record["seq"], record["prev"]) == (1, audit_log.FIRST)
    assert record["time"].endswith("Z") and len(record["time"]) == 24


def test_the_log_its_head_and_their_folder_are_private(log: Audit) -> None:
    fill(log)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (log.path, head_path(log.path), log.path.parent)]
    assert modes == [0o600, 0o600, 0o700]


def test_what_was_written_is_verified(log: Audit) -> None:
    fill(log, 7)
    assert verify(log) == Verified(1, 7, 0)


@pytest.mark.parametrize("name", ["x" * 1_000_000, "a\nb\r\x1b[2J\u202e\0", "\ud800", '"}, "mac": "', "ü" * 400])
def test_a_strangers_text_is_cut_and_cleaned_to_one_line(log: Audit, name: str) -> None:
    log.write(AuditEvent("login_failure", user=name, request=f"GET /{name}"))
    [line] = lines(log)
    assert len(line) < 6000 and line.isascii() and b"\\u202e" not in line and b"\\u001b" not in line
    record = json.loads(line)
    assert len(record["user"]) <= 300 and len(record["request"]) <= 300
    assert verify(log) == Verified(1, 1, 0)


def test_a_token_given_as_a_name_is_not_in_the_log(log: Audit) -> None:
    log.write(
        AuditEvent("login_failure", user="flansible_0123456789ab_" + "f" * 64, what="Flansible_0123456789ab_" + "e" * 9)
    )
    # Not the whole line: its code is random, and has such letters now and then.
    record = json.loads(lines(log)[0])
    assert [record["user"], record["what"]] == ["flansible_0123456789ab_...", "Flansible_0123456789ab_..."]


TAMPERINGS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int, str]] = {
    "a line removed": (lambda old: old[:2] + old[3:], 3, "record 3 is missing"),
    "two lines removed": (lambda old: old[:1] + old[3:], 2, "records 2 to 3 are missing"),
    "the first line removed": (lambda old: old[1:], 1, "record 1 is missing"),
    "a word changed": (lambda old: [*old[:2], old[2].replace(b"dev", b"bob"), *old[3:]], 3, "was changed"),
    "a number changed": (lambda old: [*old[:2], old[2].replace(b'"seq": 3', b'"seq": 4'), *old[3:]], 3, "was changed"),
    "a code changed": (lambda old: [*old[:4], old[4][:-5] + b"0000\n"[-5:]], 5, "was changed"),
    "a line put in": (lambda old: [*old[:2], b'{"event": "submission"}\n', *old[2:]], 3, "was changed"),
    "an empty line put in": (lambda old: [*old[:2], b"\n", *old[2:]], 3, "was changed"),
    "a line put in twice": (lambda old: [*old[:3], old[1], *old[3:]], 4, "record 2 instead of 4"),
    "two lines swapped": (lambda old: [old[0], old[2], old[1], *old[3:]], 2, "record 2 is missing"),
    "a line put in at the end": (lambda old: [*old, b'{"event": "submission"}\n'], 6, "was changed"),
    "the last line cut off": (lambda old: old[:-1], 0, "the last lines are missing"),
    "half of the last line cut off": (lambda old: [*old[:-1], old[-1][:50]], 0, "the last lines are missing"),
    "all lines cut off": (lambda old: [], 0, "the last lines are missing"),
}


@pytest.mark.parametrize(("change", "line", "why"), TAMPERINGS.values(), ids=TAMPERINGS)
def test_what_is_done_to_the_log_is_noticed(
    log: Audit, change: Callable[[list[bytes]], list[bytes]], line: int, why: str
) -> None:
    old = fill(log)
    log.path.write_bytes(b"".join(change(old)))
    found = wrong(log)
    assert found.line == line and why in found.why, found


@pytest.mark.parametrize(("change", "line", "why"), TAMPERINGS.values(), ids=TAMPERINGS)
def test_it_is_still_noticed_when_the_log_went_on(
    log: Audit, change: Callable[[list[bytes]], list[bytes]], line: int, why: str
) -> None:
    old = fill(log)
    with log.path.open("r+b") as file:  # the same file, as somebody would who is careful
        file.truncate()
        file.write(b"".join(change(old)))
        file.truncate()
    fill(log, 3)
    assert isinstance(verify(log), Wrong)


def test_a_removed_head_is_noticed_at_once_and_afterwards(log: Audit) -> None:
    old = fill(log)
    log.path.write_bytes(b"".join(old[:-1]))
    head_path(log.path).unlink()
    assert "head is missing" in wrong(log).why
    fill(log, 2)
    found = wrong(log)
    assert found.line == 5 and "audit_head_lost" in found.why


def test_a_forged_head_is_none(log: Audit) -> None:
    old = fill(log)
    log.path.write_bytes(b"".join(old[:-1]))
    head = head_path(log.path)
    head.write_text(head.read_text().replace("5 ", "4 ", 1))
    assert "head is missing or of another key" in wrong(log).why


def test_another_logs_head_is_noticed(log: Audit, tmp_path: Path) -> None:
    fill(log)
    other = Audit(tmp_path / "other.log", log.path.parent / "secret.key")
    for _ in range(5):
        other.write(AuditEvent("cancel"))
    head_path(log.path).write_bytes(head_path(other.path).read_bytes())
    assert "belongs to another log" in wrong(log).why


def test_an_older_log_put_back_with_its_head_is_noticed_by_a_process_that_has_written_more(log: Audit) -> None:
    old, old_head = b"".join(fill(log, 3)), head_path(log.path).read_bytes()
    fill(log, 3)
    log.path.write_bytes(old)
    head_path(log.path).write_bytes(old_head)
    fill(log, 1)
    found = wrong(log)
    assert found.line == 4 and "audit_rolled_back: 6 was written" in found.why


def test_without_the_key_no_line_can_be_made_that_fits(log: Audit, tmp_path: Path) -> None:
    fill(log)
    forger = Audit(log.path, tmp_path / "another.key")
    forger.write(AuditEvent("submission", user="nobody"))
    assert isinstance(verify(log), Wrong)


def test_a_log_without_its_key_cannot_be_verified_and_no_key_is_made(log: Audit) -> None:
    fill(log)
    key = log.path.parent / "secret.key"
    key.unlink()
    with pytest.raises(ConfigurationError, match="the log cannot be verified"):
        audit_verify.read_key(key)
    assert not key.exists()


def test_the_chain_goes_on_in_the_next_file_after_a_rotation(log: Audit) -> None:
    fill(log, 3)
    older = log.path.with_name("audit.log.1")
    log.path.rename(older)
    fill(log, 2)
    assert verify(log, older, log.path) == Verified(1, 5, 0)
    assert "give the older files" in wrong(log).why
    assert "last lines are missing" in wrong(log, older).why
    assert verify(log, is_partial=True) == Verified(4, 5, 0)
    packed = older.with_name("audit.log.1.gz")
    packed.write_bytes(gzip.compress(older.read_bytes()))
    assert verify(log, packed, log.path) == Verified(1, 5, 0)
    assert isinstance(verify(log, log.path, older), Wrong)


def test_a_log_that_was_copied_and_truncated_goes_on_too(log: Audit) -> None:
    older = log.path.with_name("audit.log.1")
    older.write_bytes(b"".join(fill(log, 3)))
    os.truncate(log.path, 0)
    fill(log, 2)
    assert verify(log, older, log.path) == Verified(1, 5, 0)


def test_a_missing_file_is_told(log: Audit) -> None:
    fill(log)
    log.path.unlink()
    assert "cannot be read" in wrong(log).why


def test_half_a_line_of_a_crash_stays_and_the_next_line_says_so(log: Audit) -> None:
    fill(log, 2)
    with log.path.open("ab") as file:
        file.write(b'{"time": "2026-')
    assert verify(log) == Verified(1, 2, 1), "nobody has written since"
    fill(log, 1)
    assert verify(log) == Verified(1, 4, 1)
    assert lines(log)[2] == b'{"time": "2026-\n'
    assert json.loads(lines(log)[3])["event"] == "audit_torn"
    log.path.write_bytes(b"".join([*lines(log)[:2], b'{"time": "2025-\n', *lines(log)[3:]]))
    assert wrong(log).line == 3, "another half line than the one that was reported"


@pytest.mark.parametrize(
    "junk", [b"x", b'{"time": "' + b"x" * 50_000, b'{"time": "\xff', b"\0" * 100, b'{"seq'], ids=len
)
def test_what_no_writer_began_is_not_owned_up_to(log: Audit, junk: bytes) -> None:
    fill(log, 2)
    with log.path.open("ab") as file:
        file.write(junk)
    fill(log, 1)
    assert wrong(log).line == 3
    assert [json.loads(line)["event"] for line in lines(log)[3:]] == ["submission"]


def test_half_a_line_is_owned_up_to_even_when_the_disk_was_still_full_at_first(
    log: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(log, 2)
    with log.path.open("ab") as file:
        file.write(b'{"time": "2026-')
    whole = os.write
    monkeypatch.setattr(audit_log.os, "write", lambda file, data: whole(file, data[:1]))
    with pytest.raises(AuditUnavailable):
        log.write(AuditEvent("submission"))
    monkeypatch.undo()
    fill(log, 1)
    assert verify(log) == Verified(1, 4, 1)


def test_a_line_whose_writer_died_before_it_told_the_head_is_kept(log: Audit) -> None:
    fill(log, 2)
    head = head_path(log.path).read_bytes()
    fill(log, 2)
    head_path(log.path).write_bytes(head)
    assert verify(log) == Verified(1, 4, 0)
    fill(Audit(log.path, log.path.parent / "secret.key"), 1)
    assert verify(log) == Verified(1, 5, 0)


def test_a_full_disk_leaves_no_half_line(log: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(log, 2)
    whole = os.write
    monkeypatch.setattr(audit_log.os, "write", lambda file, data: whole(file, data[:20]))
    with pytest.raises(AuditUnavailable, match="No space"):
        log.write(AuditEvent("submission"))
    monkeypatch.undo()
    monkeypatch.setattr(audit_log.os, "pwrite", lambda file, data, offset: 20)
    with pytest.raises(AuditUnavailable, match="No space"):
        log.write(AuditEvent("submission"))
    monkeypatch.undo()
    assert verify(log) == Verified(1, 2, 0)
    fill(log, 1)
    assert verify(log) == Verified(1, 3, 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a disk of its own cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full_stops_the_log_at_a_whole_line_and_it_goes_on_when_there_is_space(
    small_disk: Path,
) -> None:
    log = Audit(small_disk / "audit.log", small_disk / "secret.key")
    fill(log, 2)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 1024)
    with pytest.raises(AuditUnavailable):
        fill(log, 100)
    key = audit_verify.read_key(small_disk / "secret.key")
    stopped = audit_verify.verify([log.path], log.path, key)
    assert isinstance(stopped, Verified) and stopped.torn == 0 and stopped.last >= 2
    ballast.unlink()
    fill(log, 3)
    assert audit_verify.verify([log.path], log.path, key) == Verified(1, stopped.last + 3, 0)


def test_a_log_that_cannot_be_written_is_said_and_a_note_goes_on(log: Audit, caplog: pytest.LogCaptureFixture) -> None:
    fill(log, 1)
    log.path.unlink()
    log.path.mkdir()
    with pytest.raises(AuditUnavailable, match="cannot be written"):
        log.write(AuditEvent("submission"))
    log.note(AuditEvent("cancel", user="dev", task_id="t1"))
    assert "t1" in caplog.text
    assert os.strerror(errno.EISDIR) in caplog.text


def test_the_copy_has_each_line_too(path: Path) -> None:
    read_end, write_end = os.pipe()
    log = Audit(path, path.parent / "secret.key", write_end)
    assert fill(log, 2) == os.read(read_end, 1 << 16).splitlines(keepends=True)
    os.close(read_end)
    fill(log, 1)  # nobody listens any more, and it goes on
    os.close(write_end)
    assert verify(log) == Verified(1, 3, 0)


def _many(path: Path, number: int, count: int) -> None:
    log = Audit(path, path.parent / "secret.key")
    threads = [threading.Thread(target=fill, args=(log, count)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_many_processes_and_threads_keep_one_chain(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_many, args=(path, number, 100)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    log = Audit(path, path.parent / "secret.key")
    assert verify(log) == Verified(1, 800, 0)


def _without_end(path: Path) -> None:
    log = Audit(path, path.parent / "secret.key")
    while True:
        log.write(AuditEvent("submission", user="dev"))


def test_writers_that_are_killed_at_any_moment_leave_a_chain_that_holds(path: Path) -> None:
    log = Audit(path, path.parent / "secret.key")
    log.write(AuditEvent("service_start"))
    context = multiprocessing.get_context("fork")
    for number in range(10):
        writers = [context.Process(target=_without_end, args=(path,)) for _ in range(2)]
        for writer in writers:
            writer.start()
        time.sleep(0.02 + number / 500)
        for writer in writers:
            writer.kill()
            writer.join(20)
            writer.close()
    log.write(AuditEvent("service_start"))
    found = verify(log)
    assert isinstance(found, Verified) and found.count > 20, found
