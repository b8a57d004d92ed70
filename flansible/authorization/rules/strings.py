"""Rules on strings that Ansible would give a meaning of its own: templates, files, and extra variables by name.

Extra variables in a string are read as `-e` reads them, erring on the side of refusing; the run reads them with
Ansible's own parser and looks at their names again.
"""

from __future__ import annotations

import codecs
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from flansible.authorization.reserved_variables import CONNECTION_VARIABLE
from flansible.authorization.rules.refusal import forbidden
from flansible.models import RunOptions
from flansible.playbooks import yaml_outline

_TEMPLATE = re.compile(r"\{[{%#]")
# Text that the run is told to take as data, whatever it says (the variables and arguments), or that Ansible never
# looks into (secrets). In every other field a user's template is refused.
_DATA_FIELDS = frozenset(
    {
        "module_args",
        "extra_vars",
        "extra_args",
        "environment",
        "private_key",
        "connection_password",
        "become_password",
        "vault_password",
        "secret_vars",
    }
)
# Ansible decodes these in key=value strings before it looks for the =.
_ESCAPE = re.compile(r"""\\(?:U[0-9a-fA-F]{8}|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|N\{[^{}\\]+\}|[\\'"abfnrtv])""")
# ssh puts the user into the commands of its configuration (%r), and a shell runs those.
_NO_NAME = re.compile(r"""^-|[\s'"`$;&|<>(){}*?!#%]|\\$""")
_PLUGIN = re.compile(r"\w+(\.\w+)*", re.ASCII)
# Reading closely takes its time: of a longer text, in one string or in several, every word counts as a name.
_MAX_CLOSE_LOOK = 64 * 1024
_QUOTES = "\"'{[("
# Where a name begins is what counts; to normalize a long one can take hours.
_MAX_NAME = 100


def check(request: RunOptions) -> None:
    for field in sorted(set(type(request).model_fields) - _DATA_FIELDS):
        value = getattr(request, field)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and _TEMPLATE.search(text):
                raise forbidden(field, "template_forbidden", "templates in request fields are for admin only")
    if request.limit and "@" in request.limit:
        raise forbidden("limit", "limit_file_forbidden", "a limit read from a file (@) is for admin only")
    _check_names(request)
    _check_variables(request)


def _check_names(request: RunOptions) -> None:
    name = request.remote_user
    if name is not None and (_NO_NAME.search(name) or not name.isprintable()):
        message = "must be a plain user name: no spaces, quotes or signs that a shell or ssh knows, no dash in front"
        raise forbidden("remote_user", "remote_user_forbidden", message)
    if request.become_method is not None and not _PLUGIN.fullmatch(request.become_method):
        raise forbidden("become_method", "become_forbidden", "must be the name of a method, such as sudo")


def _check_variables(request: RunOptions) -> None:
    field = "extra_vars" if request.extra_vars is not None else "extra_args"
    left = _MAX_CLOSE_LOOK
    for part in request.variables:
        if isinstance(part, str) and part.lstrip().startswith(("@", "/", ".")):
            raise forbidden(field, "variables_file_forbidden", "variables read from a file (@) are for admin only")
        left -= len(part) if isinstance(part, str) else 0
        _check_variable_names(
            field, part if isinstance(part, dict) else set(names_in(part) if left >= 0 else _words(part))
        )
    _check_variable_names("secret_vars", request.secret_vars or ())


def _check_variable_names(field: str, names: Iterable[str]) -> None:
    for name in names:
        if is_reserved(name):
            message = f"{name} is one of the variables that decide where and how Ansible connects; for admin only"
            raise forbidden(f"{field}.{name}", "connection_variable_forbidden", message)


def is_reserved(name: str) -> bool:
    """Whether a variable of this name could lead a run elsewhere; spaces and look-alikes around it are no way out."""
    around = _QUOTES + " \t\r\n"
    plain = unicodedata.normalize("NFKC", name.strip(around)[:_MAX_NAME]).strip(around)
    return any(CONNECTION_VARIABLE.match(text) for text in (name, plain))


def names_in(text: str) -> Iterator[str]:
    """The variables that a string of extra variables may set; rather one too many than one too few."""
    if len(text) > _MAX_CLOSE_LOOK:
        yield from _words(text)
    elif text[:1] not in ("{", "["):
        yield from (name for name, _ in assignments_in(text))
    else:
        try:
            yield from _json_keys(text)
            yield from _keys(yaml_outline.compose(text))
        except (RecursionError, ValueError):
            yield from _words(text)  # nor will Ansible read it, as far as we know


def _words(text: str) -> Iterator[str]:
    yield from set(re.findall(r"\w+", _ESCAPE.sub(_decoded, text)))


def assignments_in(text: str) -> Iterator[tuple[str, str]]:
    """What `key=value` strings may say: the word before each = sign and the one after it, without quotes."""
    for reading in {text, _ESCAPE.sub(_decoded, text)}:
        parts = reading.split("=")
        for before, after in itertools.pairwise(parts):
            name, value = before.split()[-1:], after.split()[:1]
            if name:
                yield name[0].strip(_QUOTES), "".join(value).strip(_QUOTES)


def _keys(node: Any, seen: set[int] | None = None) -> Iterator[str]:
    """The names in YAML's outermost object, also when they are merged into it.

    seen: the nodes that were looked at; a few aliases can merge one a billion times.
    """
    seen = set() if seen is None else seen
    if not isinstance(node, yaml.MappingNode) or id(node) in seen:
        return
    seen.add(id(node))
    for key, value in node.value:
        if key.tag == "tag:yaml.org,2002:merge" or key.value == "<<":
            for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _keys(merged, seen)
        elif isinstance(key, yaml.ScalarNode):
            yield key.value


def _json_keys(text: str) -> Iterator[str]:
    """Those that JSON has, which Ansible tries first: its strings may differ from YAML's."""
    try:
        given = json.loads(text)
    except ValueError:
        return
    yield from given if isinstance(given, dict) else ()


def _decoded(escape: re.Match[str]) -> str:
    try:
        return codecs.decode(escape[0], "unicode-escape")
    except ValueError:
        return escape[0]
