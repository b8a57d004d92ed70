"""The table of all kinds of definitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from flansible.authorization import credential_rights, definition_rights, notification_rights, project_rights
from flansible.identity.users import User
from flansible.models.credential_spec import CredentialSpec
from flansible.models.definition_specs import (
    DefinitionFields,
    SearchSpec,
    Spec,
    list_model,
    reply_model,
    sealed_fields,
)
from flansible.models.hook_specs import WebhookSpec
from flansible.models.notification_specs import NotificationSpec
from flansible.models.project_spec import ProjectComputed, ProjectSpec
from flansible.models.schedule_specs import FreezeComputed, FreezeSpec, ScheduleComputed, ScheduleSpec
from flansible.models.template_specs import TemplateComputed, TemplateSpec


@dataclass(frozen=True)
class DefinitionKind:
    """One kind. name: as in the URL, in files for `flansible apply`, and in `may_define` of rbac.json; title: what it
    is, for people; shared_by: the field with the groups whose members may read it, or with `users` and `groups`;
    granted: the names, or globs of names, of those that an entry of rbac.json lets its user use, and so read what is
    not sealed; check: of what a user writes, beside the form; computed: fields that the service adds to what it returns
    of one."""

    name: str
    title: str
    spec: type[Spec]
    shared_by: str | None = None
    granted: Callable[[User], frozenset[str]] | None = None
    check: Callable[[User, Any], None] | None = None
    computed: type[BaseModel] | None = None

    def is_granted(self, user: User, name: str) -> bool:
        """Whether rbac.json lets the user use this one."""
        return self.granted is not None and definition_rights.matches(name, self.granted(user))

    @cached_property
    def reply(self) -> type[DefinitionFields]:
        """The model of what the API returns of one."""
        return reply_model(self.spec, self.computed)

    @cached_property
    def page(self) -> type[BaseModel]:
        """The model of a page of the list."""
        return list_model(self.spec, self.reply)

    @property
    def sealed(self) -> frozenset[str]:
        """The fields that are written and never returned."""
        return sealed_fields(self.spec)

    def shared_with(self, spec: Mapping[str, Any]) -> frozenset[str]:
        """Returns who may read it besides: names of groups, and `user:` with that of a user. spec: as stored."""
        given = spec.get(self.shared_by) if self.shared_by else None
        if isinstance(given, dict):
            return frozenset((*given.get("groups", ()), *(f"user:{name}" for name in given.get("users", ()))))
        return frozenset(given or ())


TEMPLATES = DefinitionKind(
    "templates", "Templates: saved requests that others may launch", TemplateSpec, "allow", computed=TemplateComputed
)

SCHEDULES = DefinitionKind(
    "schedules", "Schedules: times at which a template is launched", ScheduleSpec, computed=ScheduleComputed
)
FREEZES = DefinitionKind(
    "freezes", "Freezes: times in which nothing starts by itself", FreezeSpec, computed=FreezeComputed
)

CREDENTIALS = DefinitionKind(
    "credentials",
    "Credentials: stored secrets that requests and other definitions use by name",
    CredentialSpec,
    granted=credential_rights.globs,
    check=credential_rights.check_definition,
)

PROJECTS = DefinitionKind(
    "projects",
    "Projects: git repositories whose commits runs use",
    ProjectSpec,
    granted=project_rights.names,
    check=project_rights.check_definition,
    computed=ProjectComputed,
)

# In the order in which `apply` writes them; later ones may name earlier ones.
KINDS: tuple[DefinitionKind, ...] = (
    DefinitionKind("searches", "Saved searches: names for filters of the task list", SearchSpec, "shared_with"),
    CREDENTIALS,
    PROJECTS,
    TEMPLATES,
    SCHEDULES,
    FREEZES,
    DefinitionKind(
        "notifications",
        "Notifications: who is told of which tasks",
        NotificationSpec,
        check=notification_rights.check_definition,
    ),
    DefinitionKind("webhooks", "Webhooks: what forges and other services may start", WebhookSpec),
)
