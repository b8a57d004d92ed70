"""What a playbook and its roles say about their variables, as far as a user may read the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flansible.authorization import isolation
from flansible.authorization.entries import by_one_entry
from flansible.authorization.rules import paths
from flansible.config import Settings
from flansible.errors import FieldError, Forbidden, NotFound
from flansible.identity.users import User, resolve
from flansible.models import ListedPlaybook, ListedVariable, PlaybookRequest
from flansible.models.file_names import escape, unescape
from flansible.playbooks import contents


def may_read(user: User, settings: Settings) -> Callable[[Path], bool]:
    return paths.readable(user, settings, isolation.for_user(user, settings.isolation))


@by_one_entry
def requested_playbook(user: User, playbook_dir: str, playbook: str, settings: Settings) -> ListedPlaybook:
    """Lists one playbook with its variables. Raises Forbidden as a submission would, NotFound for any other file."""
    root, cwd = paths.root(settings), resolve(playbook_dir, settings.playbook_root)
    paths.check_folder(user, cwd, playbook_dir, settings, "playbook_dir")
    paths.playbook(user, playbook, cwd, settings)
    path, is_readable = cwd / playbook, may_read(user, settings)
    found = contents.read(path) if is_readable(path) else None
    if found is None:
        errors = [FieldError("playbook", "is not a playbook")]
        raise NotFound(f"playbook: {escape(str(path))} is not a playbook", errors=errors)
    # Only roles within playbook_root, for admin too: their links may lead anywhere.
    listed = contents.variables(found, path, lambda file: file.is_relative_to(root) and is_readable(file), cwd)
    return ListedPlaybook(
        playbook=escape(playbook),
        playbook_dir=escape(str(cwd)),
        description=found.description,
        plays=found.plays,
        encrypted=found.is_encrypted or None,
        variables=listed,
    )


def of_request(user: User, request: PlaybookRequest, settings: Settings) -> list[ListedVariable]:
    """Returns the variables of the playbooks of a request; none of those that cannot be read."""
    found: list[ListedVariable] = []
    for name in request.playbooks:
        try:
            listed = requested_playbook(user, unescape(request.playbook_dir), name, settings)
        except (Forbidden, NotFound, OSError):
            continue
        found += listed.variables or ()
    return found
