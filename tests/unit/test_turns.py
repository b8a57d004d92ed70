"""Turns: what is quick is answered one after the other, what takes long keeps nobody from it."""

from __future__ import annotations

import threading
import time

from flansible.web.server import Turns


def test_what_is_quick_is_done_one_after_the_other() -> None:
    turns = Turns()
    inside: list[int] = []
    together: list[int] = []

    def work() -> None:
        for _ in range(50):
            with turns.one():
                inside.append(1)
                together.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together) == 200
    # On a busy machine a thread may be kept from running for longer than a turn lasts.
    assert sum(count > 1 for count in together) < 20


def test_one_that_takes_long_keeps_nobody_waiting() -> None:
    turns = Turns()
    is_over, has_begun = threading.Event(), threading.Event()

    def wait() -> None:
        with turns.one():
            has_begun.set()
            is_over.wait(30)

    slow = [threading.Thread(target=wait) for _ in range(3)]
    try:
        for thread in slow:
            has_begun.clear()
            thread.start()
            assert has_begun.wait(10)
        began = time.monotonic()
        for _ in range(200):
            with turns.one():
                pass
        # Only the first waits for its turn.
        assert time.monotonic() - began < 0.5
    finally:
        is_over.set()
        for thread in slow:
            thread.join()


def test_an_answer_that_fails_gives_its_turn_back() -> None:
    turns = Turns()
    began = time.monotonic()
    for _ in range(200):
        try:
            with turns.one():
                raise ValueError
        except ValueError:
            pass
    assert time.monotonic() - began < 0.5
