"""What projects have of their own as definitions: which hosts others than admin may name, and whose trees are where."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

from flansible.authorization import project_rights
from flansible.errors import FieldError, StoreUnavailable
from flansible.history.definition_rows import StoredDefinition
from flansible.identity.users import User
from flansible.models.project_spec import ProjectCommit, ProjectComputed, ProjectSpec
from flansible.store import KeptTree
from flansible.system import addresses
from flansible.system.timestamps import timestamp
from flansible.web.context import WebContext
from flansible.web.kind_rules import Written


def check(written: Written) -> None:
    """Raises InvalidRequest for a host that is no public one by its spelling; names are looked up at the fetch."""
    assert isinstance(written.spec, ProjectSpec)
    spec, hosts = written.spec, written.context.settings.project_host_list
    if project_rights.is_public_only(written.user.name, spec, hosts) and addresses.is_internal(spec.host):
        message = "is no public address: only admin may define such a project, or an operator name it in project_hosts"
        written.refuse([FieldError("url", message)])


def compute(context: WebContext, _user: User, found: StoredDefinition, is_whole: bool) -> dict[str, Any]:
    """Returns the commits whose trees workers have."""
    commits = None
    with contextlib.suppress(StoreUnavailable):
        if is_whole:
            by_worker = context.store.trees(found.name)
            commits = [_commit(worker, tree) for worker, kept in by_worker.items() for tree in kept]
    return ProjectComputed(commits=commits).model_dump()


def _commit(worker: str, tree: KeptTree) -> ProjectCommit:
    since, used = (timestamp(datetime.fromtimestamp(seconds, UTC)) for seconds in (tree.since, tree.used))
    return ProjectCommit(
        worker=worker, commit=tree.commit, in_use=tree.in_use, since=since, used_at=used, bytes=tree.bytes
    )
