"""`flansible doctor --rights USER`: what a user may do, in the words in which the user reads it."""

from __future__ import annotations

import sys

from flansible import config, wording
from flansible.authorization import describe, isolation
from flansible.errors import ConfigurationError
from flansible.identity.users import RbacFile


def main(config_file: str | None, name: str) -> int:
    """Prints the user's rights, one sentence a line; returns 1 if they cannot be read, or there is no such user."""
    try:
        settings = config.load(config_file)
        found = RbacFile(settings.rbac_file, settings=settings).users()
    except ConfigurationError as error:
        print("\n".join(str(fault) for fault in error.faults), file=sys.stderr)
        return 1
    user = found.get(name)
    if user is None:
        near = wording.nearest(name, found)
        message = f"{settings.rbac_file} has no user {name}" + (f"; did you mean {near}?" if near else "")
        print(message, file=sys.stderr)
        return 1
    print("\n".join(describe.sentences(user, isolation.for_user(user, settings.isolation))))
    return 0
