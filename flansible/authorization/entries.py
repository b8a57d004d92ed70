"""A user's entries of rbac.json: a request is allowed when one of them, own or of a group, allows the whole of it.

The rules judge one entry at a time, so nothing is ever the sum of two: prod for one playbook by a group and dev for all
by the own entry do not become prod for all. Own first, then the groups in the user's order; the first that allows a
request is recorded with the run, and its limits are the run's. Pure; called by flansible.authorization.authorize.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from flansible.errors import FieldError, Forbidden, NotFound
from flansible.identity.users import GROUP_PREFIX, OWN_ENTRY, User

P = ParamSpec("P")
T = TypeVar("T")

# Of several refusals the one whose entry comes nearest gives the reply its code: these are the furthest.
_FAR = {"inventory_forbidden": 1, "role_forbidden": 2}


def by_one_entry(judge: Callable[Concatenate[User, P], T]) -> Callable[Concatenate[User, P], T]:
    """Makes a function that judges one entry into one that tries those of a user, and returns the first result.

    When all refuse, the error names each entry with its refusal. InvalidRequest is the same by every entry.
    """

    @functools.wraps(judge)
    def judge_each(user: User, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if not user.as_member:
            return judge(user, *args, **kwargs)
        refusals: list[tuple[User, Forbidden | NotFound]] = []
        for entry in user.entries:
            try:
                return judge(entry, *args, **kwargs)
            except (Forbidden, NotFound) as refusal:
                refusals.append((entry, refusal))
        raise _combined(refusals)

    return judge_each


def entry_of(user: User, name: str) -> User | None:
    """Returns the user's entry of this name, as a run has recorded it; None if it is gone."""
    return next((entry for entry in user.entries if entry.entry == name), None)


def label(entry: User) -> str:
    """Names an entry in a sentence."""
    group = entry.entry.removeprefix(GROUP_PREFIX)
    return "your own entry" if group == entry.entry else f"group {group}"


def _combined(refusals: list[tuple[User, Forbidden | NotFound]]) -> Forbidden | NotFound:
    """Returns one error for all entries, with status and code of the nearest; NotFound is one that the rules allow."""
    # An own entry without inventories is there for the login alone.
    said = [
        (entry, refusal)
        for entry, refusal in refusals
        if entry.inventories or entry.project_inventories or entry.entry != OWN_ENTRY
    ]
    nearest = min((refusal for _, refusal in said), key=lambda one: (isinstance(one, Forbidden), _FAR.get(one.code, 0)))
    words = "; ".join(f"{label(entry)}: {refusal.message}" for entry, refusal in said)
    errors = [
        FieldError(item.field, f"{label(entry)}: {item.message}") for entry, refusal in said for item in refusal.errors
    ]
    return type(nearest)(
        f"No entry of yours in rbac.json allows all of this. {words}", code=nearest.code, errors=errors
    )
