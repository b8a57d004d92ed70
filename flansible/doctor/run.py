"""`flansible doctor`: checks this machine and installation, one line for each check, with advice where one fails.

Run only by that command; changes nothing. Never ends in
a traceback: a check that fails with an error or does not finish in time prints a line. Passwords are never printed,
including those in URLs.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from flansible.config import Settings
from flansible.doctor import configured, machine, servers
from flansible.doctor.check import Check, Mark

AREA_SECONDS = 10.0

CONFIGURED: dict[str, Callable[[Settings], list[Check]]] = {
    "rbac.json": configured.users,
    "isolation": configured.isolated,
    "secret files": configured.secrets,
    "tls": configured.certificate,
    "http": configured.plain_http,
    "playbook_root": configured.playbook_root,
    "data_dir": configured.data_dir,
    "redis": servers.redis,
    "history": servers.history,
    "broker": servers.broker,
}


def main(config_file: str | None) -> int:
    """Prints every check; returns 1 if something must be fixed, else 0."""
    marks: Counter[Mark] = Counter()
    for check in _all_checks(config_file):
        # Standard output may be unable to encode a path; print an escape instead of stopping.
        charset = sys.stdout.encoding or "ascii"
        print(str(check).encode(charset, "backslashreplace").decode(charset), flush=True)
        marks[check.mark] += 1
    print(f"{marks[Mark.FAIL]} to fix, {marks[Mark.WARN]} to consider, {marks[Mark.OK]} ok")
    return 1 if marks[Mark.FAIL] else 0


def _all_checks(config_file: str | None) -> Iterator[Check]:
    for name, area in machine.AREAS.items():
        yield from run_area(name, area)
    loaded: list[Settings] = []
    yield from run_area("configuration", partial(configured.configuration, config_file, loaded))
    if not loaded:
        found = "rbac.json, folders, Redis, broker and worker were not checked"
        yield Check(Mark.WARN, "configuration", found, "fix it, then run `flansible doctor` again")
        return
    for name, area_of in CONFIGURED.items():
        yield from run_area(name, partial(area_of, loaded[0]))


def run_area(name: str, area: Callable[[], list[Check]]) -> list[Check]:
    """Runs the checks of one area; one failed check if they raise an error or do not finish in time."""
    answers: queue.SimpleQueue[list[Check]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(area())
        except Exception as error:
            # Anything may fail here. Only OSErrors are quoted; other messages may quote a URL's password.
            reason = str(error) if isinstance(error, OSError) else type(error).__name__
            advice = "run doctor as the user of the service"
            answers.put([Check(Mark.FAIL, name, f"cannot be checked ({reason})", advice)])

    # A thread that does not finish is abandoned, and ends with the process.
    threading.Thread(target=work, name=name, daemon=True).start()
    try:
        return answers.get(timeout=AREA_SECONDS)
    except queue.Empty:
        return [Check(Mark.FAIL, name, f"no answer within {AREA_SECONDS:g} s", "find out what blocks it")]
