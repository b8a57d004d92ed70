"""`flansible doctor`: checks of this machine and installation, one line each, with what to do where one fails.

Run by that command alone; changes nothing. May import all of the service but `web`, `worker` and `runner`. No state of
the machine ends in a traceback: what cannot be looked at, or
does not answer in time, is a line of its own. Passwords are never printed, not those in URLs either.
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
    "playbook_root": configured.playbook_root,
    "data_dir": configured.data_dir,
    "redis": servers.redis,
    "broker": servers.broker,
}


def main(config_file: str | None) -> int:
    """Print every check; 1 when something must be mended, else 0."""
    marks: Counter[Mark] = Counter()
    for check in _all_checks(config_file):
        # Standard output may be unable to write what a path is called; that is no reason to stop.
        charset = sys.stdout.encoding or "ascii"
        print(str(check).encode(charset, "backslashreplace").decode(charset), flush=True)
        marks[check.mark] += 1
    print(f"{marks[Mark.FAIL]} to mend, {marks[Mark.WARN]} to think about, {marks[Mark.OK]} well")
    return 1 if marks[Mark.FAIL] else 0


def _all_checks(config_file: str | None) -> Iterator[Check]:
    for name, area in machine.AREAS.items():
        yield from look(name, area)
    loaded: list[Settings] = []
    yield from look("configuration", partial(configured.configuration, config_file, loaded))
    if not loaded:
        found = "rbac.json, folders, Redis, broker and worker were not looked at"
        yield Check(Mark.WARN, "configuration", found, "mend it, then run `flansible doctor` again")
        return
    for name, area_of in CONFIGURED.items():
        yield from look(name, partial(area_of, loaded[0]))


def look(name: str, area: Callable[[], list[Check]]) -> list[Check]:
    """What an area's function finds; one failed check when it does not come back in time, or stumbles."""
    answers: queue.SimpleQueue[list[Check]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(area())
        except Exception as error:
            # The border: the machine may be in any state. Only OSErrors are quoted; others may quote a URL's password.
            reason = str(error) if isinstance(error, OSError) else type(error).__name__
            advice = "run doctor as the user of the service"
            answers.put([Check(Mark.FAIL, name, f"cannot be looked at ({reason})", advice)])

    # A thread that does not come back is left to itself, and ends with the process.
    threading.Thread(target=work, name=name, daemon=True).start()
    try:
        return answers.get(timeout=AREA_SECONDS)
    except queue.Empty:
        return [Check(Mark.FAIL, name, f"no answer within {AREA_SECONDS:g} s", "see what keeps it")]
