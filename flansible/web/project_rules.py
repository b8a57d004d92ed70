"""What projects have of their own as definitions: which hosts users other than admin may have the service dial."""

from __future__ import annotations

from flansible.authorization import project_rights
from flansible.errors import FieldError
from flansible.models.project_spec import ProjectSpec
from flansible.system import addresses
from flansible.web.kind_rules import Written


def check(written: Written) -> None:
    """Raises InvalidRequest for a host that is no public one by its spelling; names are looked up at the fetch."""
    assert isinstance(written.spec, ProjectSpec)
    spec, hosts = written.spec, written.context.settings.project_host_list
    if project_rights.is_public_only(written.user.name, spec, hosts) and addresses.is_internal(spec.host):
        message = "is no public address: only admin may define such a project, or an operator name it in project_hosts"
        written.refuse([FieldError("url", message)])
