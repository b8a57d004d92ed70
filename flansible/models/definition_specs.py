"""What definitions have in common: their names, sealed fields, and the bodies of `POST /api/apply`.

A definition is set up once and used by name. The body of its PUT is a `Spec`, a model for each kind; what the API
returns is the same fields without the sealed ones, and those of `DefinitionFields`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model

from flansible.models.records import Record
from flansible.models.request_fields import MAX_TEXT_CHARACTERS, Request
from flansible.states import State

MAX_NAME_CHARACTERS = 100
MAX_DEFINITIONS_AT_ONCE = 5000
MAX_GROUPS = 100

# Part of a URL, of file names in backups, and of lines for people: no character that means something there.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
DefinitionName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS, pattern=NAME_PATTERN)]
GroupName = Annotated[str, Field(min_length=1, max_length=255)]
FilterText = Annotated[str, Field(min_length=1, max_length=300)]


class SealedMark:
    """Marks a field of a Spec that is written and never returned."""


Sealed = Annotated[
    str,
    SealedMark(),
    Field(
        min_length=1,
        max_length=MAX_TEXT_CHARACTERS,
        json_schema_extra={"format": "password", "writeOnly": True},
    ),
]


class Spec(Request):
    """Base of the PUT bodies of definitions."""

    def __repr_args__(self) -> Any:
        hidden = sealed_fields(type(self))
        return [(name, value) for name, value in super().__repr_args__() if name not in hidden]


class SearchSpec(Spec):
    """A name for filters of the task list, for oneself or shared with groups."""

    model_config = ConfigDict(json_schema_extra={"example": {"state": "failed", "shared_with": ["ops"]}})

    state: State | None = Field(None, strict=False, description="Only tasks in this state.")
    user: FilterText | None = Field(None, description="Only this user's tasks.")
    kind: Literal["adhoc", "playbook", "git"] | None = Field(None, description="Only tasks of this kind.")
    text: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="Only tasks with this text in their summary; case does not matter."
    )
    playbook: FilterText | None = Field(None, description="Only runs of this `playbook`.")
    host: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None, description="Only tasks with results of this host."
    )
    shared_with: list[GroupName] = Field(
        [], max_length=MAX_GROUPS, description="Groups of rbac.json whose members may use it as well."
    )


class DefinitionFields(Record):
    """What every definition has in a reply, beside the fields of its kind."""

    name: str = Field(description="Its name, unique among those of its kind.")
    owner: str = Field(description="The user who wrote it last.")
    set: str | None = Field(description="The set that `flansible apply` wrote it with; null: it was written by itself.")
    created_at: str = Field(description="When it was made, UTC.")
    updated_at: str = Field(description="When it was changed last, UTC.")
    etag: str = Field(description="Of this version, for `If-Match`.")
    sealed: list[str] = Field(description="Names of the fields that are set and never returned.")


class AppliedDefinition(Request):
    """One definition to apply."""

    kind: str = Field(min_length=1, max_length=MAX_NAME_CHARACTERS, description="Its kind, as in the URL.")
    name: DefinitionName = Field(description="Its name.")
    spec: dict[str, JsonValue] = Field(description="The body of its PUT.")


class ApplyRequest(Request):
    """`POST /api/apply`: writes all of these definitions, or none."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"definitions": [{"kind": "searches", "name": "broken", "spec": {"state": "failed"}}]}
        }
    )

    definitions: list[AppliedDefinition] = Field(
        max_length=MAX_DEFINITIONS_AT_ONCE, description="The definitions, in any order."
    )
    set: DefinitionName = Field("default", description="A name for what is applied together.")
    prune: bool = Field(
        False, description="Whether to delete what was applied earlier with the same `set` and is not among these."
    )
    dry_run: bool = Field(False, description="Whether to only say what would change.")


class DefinitionChange(Record):
    """What became, or would become, of one definition."""

    kind: str = Field(description="Its kind.")
    name: str = Field(description="Its name.")
    action: Literal["created", "changed", "unchanged", "deleted"] = Field(description="What was done.")


class ApplyReply(Record):
    """What an apply did, or would do."""

    dry_run: bool = Field(description="Whether nothing was written.")
    changes: list[DefinitionChange] = Field(description="The definitions in the request's order, then those deleted.")


class KindDescription(Record):
    """A kind of definitions."""

    kind: str = Field(description="Its name, as in the URL.")
    title: str = Field(description="What it is.")
    may_define: bool = Field(description="Whether the caller may write definitions of this kind.")
    json_schema: dict[str, Any] = Field(description="The JSON Schema of the PUT's body.")


class KindList(Record):
    """All kinds of definitions."""

    kinds: list[KindDescription] = Field(description="The kinds.")


def sealed_fields(spec: type[Spec]) -> frozenset[str]:
    """Returns the names of the fields that are written and never returned."""
    return frozenset(name for name, field in spec.model_fields.items() if _is_sealed(field))


def _is_sealed(field: Any) -> bool:
    if any(isinstance(item, SealedMark) for item in field.metadata):
        return True
    # `Sealed | None`: the mark is within the union's branch.
    return any(
        isinstance(item, SealedMark)
        for branch in getattr(field.annotation, "__args__", ())
        for item in getattr(branch, "__metadata__", ())
    )


def reply_model(spec: type[Spec], computed: type[BaseModel] | None = None) -> type[DefinitionFields]:
    """Makes the model of a kind's reply: the fields of its spec that are not sealed, those of all definitions, and
    those that the service computes."""
    hidden = sealed_fields(spec)
    shown: dict[str, Any] = {
        name: (field.annotation, field) for name, field in spec.model_fields.items() if name not in hidden
    }
    if computed is not None:
        shown |= {name: (field.annotation, field) for name, field in computed.model_fields.items()}
    name = f"{spec.__name__.removesuffix('Spec')}Definition"
    return create_model(name, __base__=DefinitionFields, __doc__=spec.__doc__, **shown)


def list_model(spec: type[Spec], reply: type[DefinitionFields]) -> type[BaseModel]:
    """Makes the model of a page of a kind's list."""
    return create_model(
        f"{spec.__name__.removesuffix('Spec')}List",
        __base__=Record,
        __doc__="A page of definitions, by name.",
        items=(list[reply], Field(description="The definitions.")),  # type: ignore[valid-type]
        next_after=(str | None, Field(description="For the next page's `after`; null on the last one.")),
    )
