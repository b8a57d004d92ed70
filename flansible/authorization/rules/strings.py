"""Rules on strings to which Ansible gives a meaning: templates, file references, and extra variables by name.

Extra variables in a string are read as `-e` reads them; in doubt they are refused. The run reads them again with
Ansible's parser and checks the names once more.
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
# Text that the run takes as data whatever it contains (variables and arguments), or that Ansible never templates
# (secrets). In every other field a user's template is refused.
_DATA_FIELDS = frozenset(
    {
        "module_args",
        "extra_vars",
        "extra_args",
        "environment",
        "private_key",
        "private_key_passphrase",
        "connection_password",
        "become_password",
        "vault_password",
        "secret_vars",
        "credentials",
    }
)
# Ansible decodes these in key=value strings before it searches for the =.
_ESCAPE = re.compile(r"""\\(?:U[0-9a-fA-F]{8}|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|N\{[^{}\\]+\}|[\\'"abfnrtv])""")
# Ansible pastes become_user into a shell line of the host, and ssh puts remote_user into commands of its configuration
# (%r), which a shell runs. So a list of what is harmless there, not of what is known to do harm: letters and digits of
# any script, and signs that no shell treats specially within a word. A backslash (DOMAIN\\user) must not end it.
_USER = re.compile(r"\w[\w.@+:/=,\\-]*(?<!\\)")
_PLUGIN = re.compile(r"\w+(\.\w+)*", re.ASCII)
# Parsing takes time: of a longer text, in one string or in several, every word counts as a name.
_MAX_PARSED = 64 * 1024
_QUOTES = "\"'{[("
# Only the beginning of a name decides; normalizing a long one can take hours.
_MAX_NAME = 100


def check(request: RunOptions) -> None:
    for field in sorted(set(type(request).model_fields) - _DATA_FIELDS):
        value = getattr(request, field)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and _TEMPLATE.search(text):
                raise forbidden(field, "template_forbidden", "Only admin may use templates in request fields")
    if request.limit and "@" in request.limit:
        raise forbidden("limit", "limit_file_forbidden", "Only admin may read a limit from a file (@)")
    _check_names(request)
    _check_variables(request)


def _check_names(request: RunOptions) -> None:
    message = "must be a plain user name: letters, digits and . _ @ + : / = , \\ -, a letter or digit in front"
    if not is_user(request.remote_user):
        raise forbidden("remote_user", "remote_user_forbidden", message)
    if not is_user(request.become_user):
        raise forbidden("become_user", "become_forbidden", message)
    if request.become_method is not None and not _PLUGIN.fullmatch(request.become_method):
        raise forbidden("become_method", "become_forbidden", "must be the name of a method, such as sudo")


def is_user(name: str | None) -> bool:
    """Whether it is no user, or one whose name means nothing to a shell."""
    return name is None or (_USER.fullmatch(name) is not None and name.isprintable())


def _check_variables(request: RunOptions) -> None:
    field = "extra_vars" if request.extra_vars is not None else "extra_args"
    left = _MAX_PARSED
    for part in request.variables:
        if isinstance(part, str) and part.lstrip().startswith(("@", "/", ".")):
            raise forbidden(field, "variables_file_forbidden", "Only admin may read variables from a file (@)")
        left -= len(part) if isinstance(part, str) else 0
        _check_variable_names(
            field, part if isinstance(part, dict) else set(names_in(part) if left >= 0 else _words(part))
        )
    _check_variable_names("secret_vars", request.secret_vars or ())


def _check_variable_names(field: str, names: Iterable[str]) -> None:
    for name in names:
        if is_reserved(name):
            message = f"{name} decides where and how Ansible connects. Only admin may set it."
            raise forbidden(f"{field}.{name}", "connection_variable_forbidden", message)


def is_reserved(name: str) -> bool:
    """Whether a variable of this name could redirect a run, also with blanks around it or in look-alike characters."""
    around = _QUOTES + " \t\r\n"
    plain = unicodedata.normalize("NFKC", name.strip(around)[:_MAX_NAME]).strip(around)
    return any(CONNECTION_VARIABLE.match(text) for text in (name, plain))


def names_in(text: str) -> Iterator[str]:
    """Yields the names of variables that a string of extra variables may set; in doubt one too many."""
    if len(text) > _MAX_PARSED:
        yield from _words(text)
    elif text[:1] not in ("{", "["):
        yield from (name for name, _ in assignments_in(text))
    else:
        try:
            yield from _json_keys(text)
            yield from _keys(yaml_outline.compose(text))
        except (RecursionError, ValueError):
            yield from _words(text)  # Ansible cannot read it either, as far as we know


def _words(text: str) -> Iterator[str]:
    yield from set(re.findall(r"\w+", _ESCAPE.sub(_decoded, text)))


def assignments_in(text: str) -> Iterator[tuple[str, str]]:
    """Yields each possible key and value of a `key=value` string: the words before and after each =, unquoted."""
    for reading in {text, _ESCAPE.sub(_decoded, text)}:
        parts = reading.split("=")
        for before, after in itertools.pairwise(parts):
            name, value = before.split()[-1:], after.split()[:1]
            if name:
                yield name[0].strip(_QUOTES), "".join(value).strip(_QUOTES)


def _keys(node: Any, seen: set[int] | None = None) -> Iterator[str]:
    """Yields the keys of YAML's outermost object, merged ones too.

    seen: the nodes visited so far; a few aliases can merge one node a billion times.
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
    """Yields the keys that the text has as JSON, which Ansible tries first: its strings may differ from YAML's."""
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
