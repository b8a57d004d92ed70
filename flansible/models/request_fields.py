"""What fields of request bodies may hold: limits, types, and the base of all bodies. requests.py and the specs of
definitions are made of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from flansible.models.records import VariablesPart

# Limits of single fields; max_body_bytes limits the whole. Seconds stay below what Ansible, ssh and the kernel hold in
# C integers, some of them in milliseconds.
MAX_TEXT_CHARACTERS = 64 * 1024
MAX_LIST_ITEMS = 1000
# Longer than any file name, and resolving a path through millions of folders would take hours.
MAX_PATH_CHARACTERS = 4096
MAX_PATHS = 100
MAX_LOCKS = 100
MAX_CREDENTIALS = 20
MAX_QUEUE_CHARACTERS = 63
MAX_LOCK_CHARACTERS = 255
MAX_SECONDS = 365 * 24 * 3600
MAX_CONNECT_SECONDS = 1_000_000
# Of all secrets together: each line is searched for in all output. 16 values of the largest size, or 100 certificates.
MAX_SECRET_CHARACTERS = 16 * MAX_TEXT_CHARACTERS
MAX_SECRET_LINES = 10_000


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _ref(value: str) -> str:
    if not _REF.fullmatch(value):
        raise ValueError("must be a branch, a tag, or a commit of 40 digits")
    return value


def _path_or_hosts(value: str) -> str:
    if "," not in value and len(value) > MAX_PATH_CHARACTERS:
        raise ValueError(f"a path must have at most {MAX_PATH_CHARACTERS} characters")
    return value


def _one_line(value: str) -> str:
    if not _ONE_LINE.fullmatch(value):
        raise ValueError("must be one line without control characters, as typed at a prompt")
    return value


_REF = re.compile(r"(?!.*(?:\.\.|\.lock$|[/.]$))[A-Za-z0-9_][A-Za-z0-9._/+@#-]*")
# A password is typed at a prompt on the host. What follows a line break would go to the program behind the prompt,
# which with pipelining is an interpreter.
_ONE_LINE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]+")
# `_not_blank` for the JSON Schema: at least one character that str.strip would keep.
_NOT_BLANK: dict[str, JsonValue] = {"pattern": r"[^\s\x1c-\x1f\x85]"}

Text = Annotated[
    str,
    AfterValidator(_not_blank),
    Field(min_length=1, max_length=MAX_TEXT_CHARACTERS, json_schema_extra=_NOT_BLANK),
]
Texts = Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_LIST_ITEMS)]
LockName = Annotated[
    str,
    AfterValidator(_not_blank),
    Field(min_length=1, max_length=MAX_LOCK_CHARACTERS, json_schema_extra=_NOT_BLANK),
]
LockNames = LockName | Annotated[list[LockName], Field(min_length=1, max_length=MAX_LOCKS)]
PathText = Annotated[
    str,
    AfterValidator(_not_blank),
    Field(min_length=1, max_length=MAX_PATH_CHARACTERS, json_schema_extra=_NOT_BLANK),
]
ProjectRef = Annotated[
    str,
    AfterValidator(_ref),
    Field(min_length=1, max_length=255, json_schema_extra={"pattern": rf"^{_REF.pattern}$"}),
]
ProjectName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
PathTexts = PathText | Annotated[list[PathText], Field(min_length=1, max_length=MAX_PATHS)]
# Ansible says that it could not be found.
PlaybookText = Annotated[str, Field(max_length=MAX_PATH_CHARACTERS)]
PlaybookTexts = PlaybookText | Annotated[list[PlaybookText], Field(min_length=1, max_length=MAX_PATHS)]
Inventory = Annotated[Text, AfterValidator(_path_or_hosts)]
Inventories = Inventory | Annotated[list[Inventory], Field(min_length=1, max_length=MAX_PATHS)]
# May be empty where that means something to Ansible: `--tags ''`, `--user ''`, `-m ''`.
OptionText = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]
OptionTexts = OptionText | Annotated[list[OptionText], Field(min_length=1, max_length=MAX_LIST_ITEMS)]
FreeText = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]
Secret = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS, json_schema_extra={"format": "password"})]
Password = Annotated[
    str,
    AfterValidator(_one_line),
    Field(
        min_length=1,
        max_length=MAX_TEXT_CHARACTERS,
        json_schema_extra={"format": "password", "pattern": rf"^{_ONE_LINE.pattern}$"},
    ),
]
ExtraVars = dict[str, JsonValue] | str | Annotated[list[VariablesPart], Field(max_length=MAX_LIST_ITEMS)]
VariableName = Annotated[str, Field(max_length=255, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
# As of every definition: flansible.models.definition_specs has the pattern, and stands above this module.
CredentialName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
# Part of the names of the broker's queues, where a dot separates the parts.
QUEUE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
QueueName = Annotated[str, Field(min_length=1, max_length=MAX_QUEUE_CHARACTERS, pattern=QUEUE_PATTERN)]
EnvironmentName = Annotated[str, Field(max_length=255, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
# Behind an @ Ansible would read, or execute, a file.
VaultLabel = Annotated[str, Field(pattern=r"^[^@]*$")]


def secrets_problem(values: Sequence[str]) -> str:
    """Returns what is wrong with the secrets of a request taken together, '' if nothing is."""
    if sum(map(len, values)) > MAX_SECRET_CHARACTERS:
        return f"the secrets of a request must have at most {MAX_SECRET_CHARACTERS} characters in all"
    if sum(len(value.splitlines()) for value in values) > MAX_SECRET_LINES:
        return f"the secrets of a request must have at most {MAX_SECRET_LINES} lines in all"
    return ""


class Request(BaseModel):
    """Base of request bodies. Types are strict: "false" is not false, 1.0 is not 1; an unknown field is an error."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
