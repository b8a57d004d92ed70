"""Redacts requests: the body without its secrets, and command lines that do the same.

Pure. Fields for secrets are masked whole; variables and module arguments by their names, since people put passwords
there too. Called by flansible.authorization.authorize, and by web on stored requests.
"""

from __future__ import annotations

import itertools
import json
import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import JsonValue

from flansible.errors import field_path
from flansible.models import DEFAULT_QUEUE, AuthorizedRun, Kind, Step, TaskOptions
from flansible.models.file_names import escape

MASK = "********"
PATHS: dict[Kind, str] = {"adhoc": "/api/ansiblecommand", "playbook": "/api/ansibleplaybook", "git": "/api/git"}
SECRET_FIELDS = frozenset(
    {
        "connection_password",
        "become_password",
        "vault_password",
        "private_key",
        "private_key_passphrase",
        "secret_vars",
    }
)
# Fields whose keys show which values are secret.
_NAMED_FIELDS = ("extra_vars", "extra_args", "module_args", "environment")
# `pass` and `pwd` as whole words, the others anywhere in a name.
_SECRET_WORD = (
    r"(?:passwd|password|passphrase|secret|token|api_?key|private_?key|credential|(?<![a-z])(?:pass|pwd)(?![a-z]))"
)
# Up to the first such word: each letter is looked at once, in names of any length.
_SECRET_NAME = rf"(?:(?!{_SECRET_WORD})[\w.-])*+{_SECRET_WORD}[\w.-]*+"
_IS_SECRET = re.compile(_SECRET_NAME, re.IGNORECASE)
_ASSIGNED = re.compile(rf"(?<![\w.-])({_SECRET_NAME}\s*+=\s*+)('[^']*'|\"[^\"]*\"|\S+)", re.IGNORECASE)
_MAX_MASKED_FIELDS = 500
_OPTIONS = ("--extra-vars=", "--args=")
_SENT_BY_CLIENTS = "ANSIBLE_"  # variables of this prefix in the environment of `flansible` are sent with the request
_NOT_BY_CLIENTS = ("update_git_repo", "private_key", "private_key_passphrase", "secret_vars", "credentials", "strategy")


def as_sent(request: TaskOptions) -> dict[str, JsonValue]:
    """Returns the body with its secrets masked."""
    body: dict[str, JsonValue] = request.model_dump(mode="json", exclude_unset=True)
    for field in SECRET_FIELDS & body.keys():
        value = body[field]
        body[field] = dict.fromkeys(value, MASK) if isinstance(value, dict) else MASK
    for field in _NAMED_FIELDS:
        if field in body:
            body[field] = _masked(body[field])
    return body


def masked_fields(value: JsonValue) -> list[str]:
    """Returns the paths of values that are masked, wholly or in part; 500 at most."""
    return [field_path(names) for names in itertools.islice(_masked_places(value, ()), _MAX_MASKED_FIELDS)]


def _masked_places(value: JsonValue, names: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, str):
        if MASK in value:
            yield names
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _masked_places(item, (*names, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _masked_places(item, (*names, number))


def command(run: AuthorizedRun) -> str:
    """Returns the run as a shell command: steps joined by `&&`, secrets in variables masked."""
    folder = _shell_words("cd", (run.steps[0].cwd,))
    if run.project is not None:
        name, where = run.project.name, posixpath.normpath(posixpath.join(run.project.name, run.steps[0].cwd))
        clone = _shell_words("git", ("clone", run.project.url, name))
        checkout = _shell_words("git", ("-C", name, "checkout", "--detach", run.project.commit))
        folder = " && ".join((clone, checkout, _shell_words("cd", (where,))))
    return " && ".join((folder, *(_shell_words(step.program, _arguments(step)) for step in run.steps)))


def flansible_command(run: AuthorizedRun) -> str | None:
    """Returns the same as `flansible adhoc` or `flansible playbook`, with Ansible's options; None where they cannot."""
    request, step = run.request, run.steps[-1]
    environment = step.environment
    is_expressible = all(name.startswith(_SENT_BY_CLIENTS) for name in environment)
    if run.kind == "git" or any(request.get(field) for field in _NOT_BY_CLIENTS) or not is_expressible:
        return None
    if not _are_sent_as_they_are(step):
        return None
    project = run.project
    words = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    options = ["--chdir", step.cwd]
    if project is not None:
        options = ["--project", project.name, "--ref", project.commit, *options]
    if run.time_limit is not None:
        options += ["--time-limit", str(run.time_limit)]
    # Those with a null byte are the service's own.
    options += [word for lock in run.locks if "\0" not in lock for word in ("--lock", lock)]
    options += ["--queue", run.queue] if run.queue != DEFAULT_QUEUE else []
    options += ["--exclusive", run.exclusive] if run.exclusive else []
    options += ["--on-lost", run.on_lost] if run.on_lost != "fail" else []
    return " ".join((*words, _shell_words("flansible", (run.kind, *options, *_arguments(step)))))


def curl(kind: Kind, body: dict[str, JsonValue], user: str, base: str) -> str:
    """Returns the request as a curl command, which prompts for the password. base: the address of the service."""
    lines = (
        ("curl", "--user", user, "--header", "Content-Type: application/json"),
        ("--data", json.dumps(body, ensure_ascii=False)),
        (base.rstrip("/") + PATHS[kind],),
    )
    return " \\\n  ".join(map(shlex.join, lines))


def _are_sent_as_they_are(step: Step) -> bool:
    """Whether the client's request has the step's names of files as its command line has them, none escaped."""
    names = (step.cwd, *step.argv[step.argv.index("--") :])
    return all(escape(name) == name for name in names) and all(map(_is_text, step.argv))


def _is_text(word: str) -> bool:
    return not re.search("[\udc80-\udcff]", word)


def _shell_words(program: str, arguments: Iterable[str]) -> str:
    return " ".join(map(_quoted, (program, *arguments)))


def _quoted(word: str) -> str:
    """Quotes a word for the shell; for bytes that are no UTF-8 as bash and zsh do it: $'caf\\xe9.yml'."""
    if _is_text(word):
        return shlex.quote(word)
    plain = word.replace("\\", r"\\").replace("'", r"\'")
    return f"$'{plain.encode(errors='surrogateescape').decode(errors='backslashreplace')}'"


def _arguments(step: Step) -> list[str]:
    parts = (*step.extra_vars, *([step.launch_vars] if step.launch_vars else ()))
    variables = [f"--extra-vars={part if isinstance(part, str) else json.dumps(part)}" for part in parts]
    # Those of admin are the first words. Of variables the last ones win.
    own = list(itertools.takewhile(lambda word: word.startswith(_OPTIONS[0]), step.argv))
    return [_masked_option(word) for word in (*own, *variables, *step.argv[len(own) :])]


def _masked_option(word: str) -> str:
    option = next((option for option in _OPTIONS if word.startswith(option)), None)
    if option is None:
        return word
    text = word.removeprefix(option)
    return option + str(_masked(text))


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        named = value.get("arg_name") if "arg_value" in value else None
        if isinstance(named, str) and _IS_SECRET.fullmatch(named):
            return {**value, "arg_value": MASK}
        return {name: MASK if _is_secret(name, item) else _masked(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return _masked_text(value) if isinstance(value, str) else value


def _is_secret(name: str, value: Any) -> bool:
    """Whether a value is masked by its name. Booleans and empty values are not secrets: `no_log_password: true`."""
    return _IS_SECRET.fullmatch(name) is not None and value not in (None, "") and not isinstance(value, bool)


def _masked_text(text: str) -> str:
    if text[:1] in ("{", "["):
        try:
            return json.dumps(_masked(json.loads(text)))
        except ValueError:
            pass  # YAML, or cut: searched for assignments below
    return _ASSIGNED.sub(rf"\g<1>{MASK}", text)
