"""Turns an authorized run into its preview run: the same command with the same rights, which executes nothing.

Pure; called by the web process. A preview run is a hidden task: it is queued like any run, with its secrets sealed and
in its user's sandbox, and appears in no list.
"""

from __future__ import annotations

import re
from typing import Literal

from flansible.models import AuthorizedRun, Secrets, Step

# The preview run ends after this, even while a request waits for it.
MAX_SECONDS = 20
# They would clear the fact cache, or list something else; -vvv would fill the messages.
_LEFT_OUT = re.compile(r"-v+|--(?:flush-cache|list-hosts|list-tasks|list-tags|syntax-check)")


def preview_of(run: AuthorizedRun, what: Literal["plan", "inventory"]) -> AuthorizedRun:
    """Returns the preview run of the last step, which is Ansible's; a pull before it is left out."""
    step = run.steps[-1]
    return run.model_copy(
        update={
            "summary": f"{run.summary} (preview)",
            "steps": (step.model_copy(update={"argv": _list_options(step), "listing": what}),),
            "request": {},
            "secrets": _secrets_for_reading(run.secrets),
            "hidden": True,
            "visibility": None,
            "time_limit": MAX_SECONDS,
            "on_lost": "fail",
            "exclusive": None,
            "locks": locks_of(run),
            "max_running": 0,
            "max_queued": 0,
        }
    )


def locks_of(run: AuthorizedRun) -> tuple[str, ...]:
    """Returns the lock by which a user has one preview at a time: they do not count as runs of the user."""
    return () if run.confinement is None else (f"\0look of {run.user}",)  # no lock of a request can have this name


def _list_options(step: Step) -> tuple[str, ...]:
    operands = step.argv.index("--")
    options = tuple(word for word in step.argv[:operands] if not _LEFT_OUT.fullmatch(word))
    lists = ("--list-hosts", "--list-tasks") if step.program == "ansible-playbook" else ()
    return options + lists + step.argv[operands:]


def _secrets_for_reading(secrets: Secrets | None) -> Secrets | None:
    """Returns the secrets that reading files needs. No host is connected to, so those for connections are left out."""
    if secrets is None:
        return None
    kept = Secrets(
        vault_passwords=secrets.vault_passwords,
        variables=secrets.variables,
        environment=secrets.environment,
        git_credential=secrets.git_credential,
    )
    return None if kept == Secrets() else kept
