"""The kind `projects`: repositories whose commits runs use. Urls and refs are checked here, before git sees them."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from flansible.models.definition_specs import DefinitionName, Spec
from flansible.models.records import Record
from flansible.models.request_fields import MAX_PATH_CHARACTERS, MAX_TEXT_CHARACTERS, ProjectRef, QueueName, Request

MAX_GLOBS = 100
_LINES: dict[str, JsonValue] = {"format": "lines"}  # for the console's form
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_NAME}|\[[0-9A-Fa-f:.]+\])"
_USER = r"(?:[A-Za-z0-9_][A-Za-z0-9._~+-]*@)?"
_REST = r"[^\s\x00-\x1f\x7f\\]"
# What git could take for an option or for a program (`ext::`) is none of these.
_URL = (
    rf"(?:(?:https?|ssh|git)://{_USER}{_HOST}(?::[0-9]{{1,5}})?/{_REST}*"
    rf"|{_USER}{_NAME}:(?!//)(?![:-]){_REST}+"
    rf"|(?:file://)?/{_REST}*)"
)
_GLOB = r"(?!.*\.\.)[A-Za-z0-9_*?\[][A-Za-z0-9._/*?\[\]!+@-]*"
_RELATIVE = r"(?!/)(?!(?:.*/)?\.\.(?:/|$))[^\x00-\x1f\x7f]+"


def _matching(expression: str, words: str) -> AfterValidator:
    """Checks a value; pydantic's own patterns have no lookaheads."""

    def check(value: str) -> str:
        if not re.fullmatch(expression, value):
            raise ValueError(f"must be {words}")
        return value

    return AfterValidator(check)


def _pattern(expression: str) -> dict[str, JsonValue]:
    return {"pattern": f"^{expression}$"}


_URL_WORDS = (
    "https://host/path, ssh://user@host/path, user@host:path, git://host/path or a path; passwords and tokens belong "
    "into a credential"
)
RefGlob = Annotated[
    str,
    _matching(_GLOB, "a branch or tag, or a glob of them, such as release/*"),
    Field(min_length=1, max_length=255, json_schema_extra=_pattern(_GLOB)),
]
RepositoryUrl = Annotated[
    str,
    _matching(_URL, _URL_WORDS),
    Field(min_length=1, max_length=MAX_PATH_CHARACTERS, json_schema_extra=_pattern(_URL)),
]
RequirementsPath = Annotated[
    str,
    _matching(_RELATIVE, "`auto`, `none`, or a path in the project without .."),
    Field(min_length=1, max_length=MAX_PATH_CHARACTERS, json_schema_extra=_pattern(_RELATIVE)),
]


class MaxAge(Request):
    """How old the last answer of the remote may be."""

    max_age: int = Field(ge=1, le=365 * 86400, description="Seconds; after them the remote is asked again.")


class ProjectSpec(Spec):
    """A git repository whose playbooks and inventories runs use, each at one commit."""

    model_config = ConfigDict(json_schema_extra={"example": {"url": "https://git.example.org/shop.git", "ref": "main"}})

    url: RepositoryUrl = Field(
        description="Where the repository is: by https, ssh or git; for admin also by http, and a path of the "
        "workers' machines."
    )
    ref: ProjectRef | None = Field(
        None, description="Branch or tag of requests that name none. Default: the repository's default branch."
    )
    credential: DefinitionName | None = Field(None, description="Name of the credential (`git`) to fetch with.")
    known_hosts: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_TEXT_CHARACTERS,
        json_schema_extra=_LINES,
        description="Keys of the ssh host, as lines of a known_hosts file. Default: those that the worker knows.",
    )
    submodules: bool = Field(False, description="Whether submodules are part of it: those on the same host.")
    depth: int | None = Field(
        None, ge=1, le=1_000_000, description="Fetch only so many commits of each branch and tag. Default: all."
    )
    refresh: Literal["on_launch", "manual"] | MaxAge = Field(
        "on_launch",
        description="When the remote is asked for the commit of a ref: for each request; never but for one that is not "
        "known, and by hand; or if the last answer is older than `max_age`.",
    )
    requirements: RequirementsPath = Field(
        "auto",
        description="Roles and collections to install: `auto` finds requirements.yml, also in `roles` and "
        "`collections`; `none`; or the path of the file in the project.",
    )
    allow_refs: list[RefGlob] = Field(
        ["*"],
        max_length=MAX_GLOBS,
        description="Globs of branches and tags that requests may name, beside `ref`. Default: all.",
    )
    verify_signatures: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_TEXT_CHARACTERS,
        json_schema_extra=_LINES,
        description="Lines of an allowed signers file of ssh: only commits that one of them has signed are run.",
    )
    private_copy: bool = Field(
        False,
        description="Whether each run gets a copy of the tree, of at most 1 GiB, that it may write and that is gone "
        "afterwards: for playbooks that write beside themselves.",
    )

    queue: QueueName | None = Field(
        None, description="Queue whose workers fetch it and run what names no queue. Default: `default`."
    )

    @property
    def is_local(self) -> bool:
        """Whether the url is a path of the workers' machines, which only admin may name."""
        return self.url.startswith(("/", "file://"))

    @property
    def host(self) -> str:
        """The host of the url, without user and port; empty for a path."""
        if self.is_local:
            return ""
        return urlsplit(self.url if "://" in self.url else f"ssh://{self.url.partition(':')[0]}").hostname or ""


class ProjectRemote(Record):
    """How the last look at a project's remote went."""

    name: str = Field(description="Name of the project.")
    asked_at: str | None = Field(description="When it was; RFC 3339, UTC. Null: never.")
    ref: str | None = Field(description="The ref that was asked for last.")
    commit: str | None = Field(description="Its commit, 40 digits; null: there was no answer.")
    problem: str | None = Field(description="Why it did not answer, in git's words; null: it did.")


class ProjectCommit(Record):
    """A commit whose tree a worker has."""

    worker: str = Field(description="The worker.")
    commit: str = Field(description="40 digits.")
    in_use: bool = Field(description="Whether a run uses it now; else it is at hand.")
    since: str = Field(description="When the tree was written; RFC 3339, UTC.")
    used_at: str = Field(description="When a run took it last.")
    bytes: int = Field(description="Its size on disk.")


class ProjectComputed(BaseModel):
    """What the service adds when it shows a project."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "commits": [
                    {
                        "worker": "worker@host",
                        "commit": "3f1c0e6bd9a4c7f28e5d1b0a9c8f7e6d5c4b3a29",
                        "in_use": True,
                        "since": "2026-11-30T08:15:00Z",
                        "used_at": "2026-12-01T09:30:00Z",
                        "bytes": 45056,
                    }
                ]
            }
        }
    )

    commits: list[ProjectCommit] | None = Field(
        description="Commits whose trees workers have, of each worker the 100 that were used last. Null in lists, and "
        "where they are not known."
    )
