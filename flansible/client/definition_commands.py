"""`flansible apply` and `flansible get`: definitions from files to a service, and back as YAML."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from flansible.client import definition_files
from flansible.client.definition_files import FileDefinition
from flansible.client.profile import Profile
from flansible.errors import OptionError, ServiceRefused

# What the service adds to the fields of a definition.
ADDED = frozenset(
    ("name", "owner", "set", "created_at", "updated_at", "etag", "sealed")  # to all kinds
    + ("may_launch", "launch_schema", "choices_problems")  # to templates
    + ("words", "next", "paused_by", "skips_left", "failures")  # to schedules
    + ("is_active", "commits")  # to freezes, to projects
)
_APPLY_TIMEOUT_SECONDS = 120.0
_ITEM = re.compile(r"definitions\[(\d+)\]\.?(.*)", re.DOTALL)


def apply(login: Profile, paths: Sequence[str], set_name: str, *, dry_run: bool, prune: bool) -> int:
    """Applies files and folders of definitions, all or nothing; prints what became of each. Returns the exit code."""
    given = definition_files.read(paths)
    body = {
        "definitions": [{"kind": item.kind, "name": item.name, "spec": item.spec} for item in given],
        "set": set_name,
        "prune": prune,
        "dry_run": dry_run,
    }
    with login.client(_APPLY_TIMEOUT_SECONDS) as client:
        try:
            reply = client.apply(body)
        except ServiceRefused as error:
            raise _with_places(error, given) from error
    counts = {"created": 0, "changed": 0, "unchanged": 0, "deleted": 0}
    for change in reply["changes"]:
        counts[change["action"]] += 1
        if change["action"] != "unchanged":
            print(f"{change['kind']}/{change['name']} {change['action']}")
    summary = ", ".join(f"{count} {action}" for action, count in counts.items())
    print(f"{summary}{' (dry run: nothing was written)' if dry_run else ''}", file=sys.stderr)
    return 0


def get(login: Profile, kind: str, name: str | None) -> int:
    """Prints a definition, or all of a kind, as YAML that `apply` takes; sealed fields are missing."""
    with login.client() as client:
        found_all = client.definitions(kind) if name is None else iter([client.definition(kind, name)])
        for number, found in enumerate(found_all):
            if number:
                print("---")
            print(_yaml(kind, found), end="")
    return 0


def _yaml(kind: str, found: dict[str, Any]) -> str:
    spec = {key: value for key, value in found.items() if key not in ADDED and value is not None}
    document = {"kind": kind, "name": found["name"], "spec": spec}
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    if found["sealed"]:
        text += f"# not shown, and kept by `flansible apply`: {', '.join(found['sealed'])}\n"
    return text


def _with_places(error: ServiceRefused, given: Sequence[FileDefinition]) -> ServiceRefused | OptionError:
    """Returns an error that names file and line of each fault, where the service named the definition."""
    lines = []
    for item in error.errors:
        found = _ITEM.fullmatch(item.field)
        if found is None or int(found[1]) >= len(given):
            return error
        lines.append(f"{given[int(found[1])].place(found[2])}: {found[2] or 'definition'}: {item.message}")
    return OptionError("\n".join([*lines, "Nothing was applied"])) if lines else error
