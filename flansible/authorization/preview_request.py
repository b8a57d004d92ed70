"""From an authorized run to a look at it: the same command under the same rights, which executes nothing.

Pure; called by the web process. A look is a hidden task: it goes the way of all runs, with its secrets sealed and in
its user's sandbox, and is in no list.
"""

from __future__ import annotations

import re
from typing import Literal

from flansible.models import AuthorizedRun, Secrets, Step

# The look itself ends after this, whoever still waits for it.
LONGEST_SECONDS = 20
# They would clear what is cached, or list something else; -vvv would fill the messages.
_LEFT_OUT = re.compile(r"-v+|--(?:flush-cache|list-hosts|list-tasks|list-tags|syntax-check)")


def at(run: AuthorizedRun, what: Literal["plan", "inventory"]) -> AuthorizedRun:
    """The look at a run's last step, which is Ansible's. What comes before it, a pull, is left out."""
    step = run.steps[-1]
    return run.model_copy(
        update={
            "summary": f"{run.summary} (look)",
            "steps": (step.model_copy(update={"argv": _listing(step), "listing": what}),),
            "request": {},
            "secrets": _needed(run.secrets),
            "hidden": True,
            "time_limit": LONGEST_SECONDS,
            "on_lost": "fail",
            # One at a time: a look does not count among its user's runs. No lock of a request can have this name.
            "locks": () if run.confinement is None else (f"\0look of {run.user}",),
            "max_running": 0,
            "max_queued": 0,
        }
    )


def _listing(step: Step) -> tuple[str, ...]:
    operands = step.argv.index("--")
    options = tuple(word for word in step.argv[:operands] if not _LEFT_OUT.fullmatch(word))
    told = ("--list-hosts", "--list-tasks") if step.program == "ansible-playbook" else ()
    return options + told + step.argv[operands:]


def _needed(secrets: Secrets | None) -> Secrets | None:
    """What reading needs. Nothing is connected to, so the passwords and the key for that stay here."""
    if secrets is None:
        return None
    kept = Secrets(vault_passwords=secrets.vault_passwords, variables=secrets.variables)
    return None if kept == Secrets() else kept
