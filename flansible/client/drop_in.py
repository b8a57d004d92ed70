"""`flansible adhoc` and `flansible playbook`: turns an Ansible command line into a request; prompts for secrets here.

Sends along what the command line would see: the working directory, ANSIBLE_* variables, and files of variables, which
are read here. Called by flansible.cli; the options themselves are in flansible.client.options.
"""

from __future__ import annotations

import getpass
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from flansible.client import options, profile, terminal
from flansible.client.options import TABLES, CommandLine, Program
from flansible.errors import OptionError, ServiceRefused

DEFAULT_MODULE = "command"
DEFAULT_VAULT_ID = "default"  # Ansible's own name for a vault password without one
_MOST_VERBOSE = 6
_VAULT = "$ANSIBLE_VAULT;"
_PROMPTS = ("prompt", "prompt_ask_vault_pass")
_PATH_FIELDS = frozenset(
    {
        "vault_password_file",
        "private_key_file",
        "connection_password_file",
        "become_password_file",
        "tree",
        "playbook_dir",
    }
)
# Listings run nothing, so ansible-playbook does not prompt for a connection password.
_LISTINGS = ("list_hosts", "list_tasks", "list_tags", "syntax_check")
# Switches that the environment can set as well: the field to prompt for -> its variable.
_PROMPT_VARIABLES = {
    "connection_password": "ANSIBLE_ASK_PASS",
    "become_password": "ANSIBLE_BECOME_ASK_PASS",
    "vault_password": "ANSIBLE_ASK_VAULT_PASS",
}
# Handled by the client, so not sent.
_KEPT_VARIABLES = frozenset({"ANSIBLE_NOCOLOR", "ANSIBLE_FORCE_COLOR", *_PROMPT_VARIABLES.values()})
_VARIABLE = re.compile(r"ANSIBLE_[A-Za-z0-9_]+")
_SECRET_VARIABLE = re.compile(r"(PASS|PASSWD|PASSWORD|PASSPHRASE|SECRET|SECRET_ID|TOKEN|API_KEY|SECRET_KEY)$")


def main(program: Program, arguments: Sequence[str]) -> int:
    """Runs the command and returns the exit code; raises ClientError. Wrong usage and --help exit, as with Ansible."""
    line = options.parse(program, arguments)
    own = line.client
    try:
        found = profile.find(
            profile.Given(own.url, own.api_user, own.api_password_file, own.api_token_file, own.api_ca_file)
        )
        body = request(line, found.is_here)
        for name in withheld_variables():
            print(
                f"flansible: {name} is not sent: its name looks like a secret, and records would keep it",
                file=sys.stderr,
            )
        prompt_for_secrets(line, body)
    except KeyboardInterrupt:
        print("flansible: interrupted; nothing was sent", file=sys.stderr)
        return terminal.EXIT_CANCELED
    try:
        try:
            return terminal.run(found, program, body, wait=not own.no_wait, as_json=own.json)
        except ServiceRefused as refused:
            if not _would_go_on(refused):
                raise
        return terminal.run(found, program, {**body, "allow_missing": True}, wait=not own.no_wait, as_json=own.json)
    except ServiceRefused as refused:
        if own.chdir is None and any(item.field in ("playbook_dir", "chdir") for item in refused.errors):
            raise OptionError(f"{refused} (it is the current directory; choose another one with --chdir)") from refused
        raise


def _would_go_on(refused: ServiceRefused) -> bool:
    """Whether the command line goes on without what is missing: an inventory, a playbook, or the answer to a prompt.

    Asked for only then: a service of an earlier version has no `allow_missing`.
    """
    missing = {item.field.partition(".")[0] for item in refused.errors}
    return (refused.status, missing) in ((404, {"inventory"}), (404, {"playbook"}), (400, {"secret_vars"}))


def request(line: CommandLine, is_here: bool, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Builds the request body without secrets. is_here: the service has this machine's files. Raises OptionError."""
    own_folder = "." if line.client.project is not None else None
    place = _Place(is_here, line.client.chdir or own_folder)
    body: dict[str, Any] = {}
    for option in TABLES[line.program]:
        value = line.given.get(option.field)
        if option.how == "prompt" or value is None or value is False:
            continue
        value = _converted(option.field, value, place)
        if value not in (None, []):
            body[option.field] = value
    if line.program == "adhoc":
        body["host_pattern"] = line.operands[0]
        body.setdefault("module", DEFAULT_MODULE)
        if place.chdir or is_here:
            body["chdir"] = place.chdir or _current_directory()
    else:
        body["playbook"] = line.operands
        body["playbook_dir"] = place.chdir or _current_directory()
    names = ("project", "ref", "time_limit", "lock", "exclusive", "credentials", "queue", "on_lost")
    own = {name: getattr(line.client, name) for name in names}
    body |= {name: value for name, value in own.items() if value is not None}
    environment = {name: value for name, value in _ansible_variables(environ) if not _SECRET_VARIABLE.search(name)}
    return {**body, "environment": environment} if environment else body


def withheld_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Names the ANSIBLE_* variables that are not sent, because records would keep their secrets."""
    return [name for name, _ in _ansible_variables(environ) if _SECRET_VARIABLE.search(name)]


def prompt_for_secrets(line: CommandLine, body: dict[str, Any], environ: Mapping[str, str] = os.environ) -> None:
    """Prompts for what Ansible would, in its words and order, and adds it to the request. Raises OptionError."""
    prompted = {
        field: bool(line.given[field]) or terminal.is_true(environ.get(variable))
        for field, variable in _PROMPT_VARIABLES.items()
    }
    if line.program == "adhoc" or not any(line.given[name] for name in _LISTINGS):
        _prompt_for_passwords(body, prompted["connection_password"], prompted["become_password"])
    passwords = {label: _vault_password(label, f"Vault password ({label}): ") for label in _prompting(body)}
    unnamed = _vault_password(DEFAULT_VAULT_ID, "Vault password: ") if prompted["vault_password"] else None
    if passwords:
        body["vault_password"] = passwords | ({DEFAULT_VAULT_ID: unnamed} if unnamed else {})
    elif unnamed:
        body["vault_password"] = unnamed


@dataclass(frozen=True)
class _Place:
    """Where the run will be; is_here: on this machine; chdir: the value of --chdir."""

    is_here: bool
    chdir: str | None

    def path(self, text: str) -> str:
        """Returns the path to send: absolute if it exists here, otherwise as given."""
        if text == "-" or (self.chdir is not None and text):
            return text
        if not text:
            return "."  # as Ansible takes an empty path
        path = _local(text)
        return path if os.path.exists(path) else text


def _local(text: str) -> str:
    return os.path.abspath(os.path.expandvars(os.path.expanduser(text)))


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        raise OptionError(f"the current directory cannot be determined: {error.strerror}; give --chdir") from error


def _converted(field: str, value: Any, place: _Place) -> Any:
    """Converts an option's value for its field; None or an empty list if it has no effect."""
    if field == "playbook_dir" and not value:
        return place.chdir or (_current_directory() if place.is_here else ".")
    if field == "tree" and not value:
        return None
    if field in _PATH_FIELDS:
        return [place.path(text) for text in value] if isinstance(value, list) else place.path(value)
    if field == "inventory":
        return [text if "," in text else place.path(text) for text in value]
    if field == "vault_id":
        return [_vault_id(text, place) for text in value]
    if field == "module_path":
        # A later -M goes before the earlier ones; its own folders stay in order.
        folders = [folder for text in reversed(value) for folder in text.split(os.pathsep) if folder]
        return os.pathsep.join(place.path(folder) for folder in folders) or None
    if field == "extra_vars":
        return [_variables(text, place) for text in value if text]
    if field == "verbose_level":
        return min(value, _MOST_VERBOSE) or None
    # Empty and absent mean the same to Ansible for these, and a blank limit is an empty one.
    is_empty = not (value.strip() if field == "limit" else value)
    return None if field in ("limit", "module_args", "start_at_task") and is_empty else value


def _vault_id(text: str, place: _Place) -> str:
    label, at, source = text.partition("@")
    if not at:
        label, source = "", text
    if source in _PROMPTS:
        return f"{label or DEFAULT_VAULT_ID}@prompt"
    return f"{label}{at}{place.path(source)}"


def _variables(text: str, place: _Place) -> str | dict[str, Any]:
    """Returns the value of one -e, or the contents of the file it names."""
    if not text.startswith("@"):
        return text
    path = _local(text[1:])
    try:
        with open(path, encoding="utf-8") as file:
            content = file.read()
        if content.startswith(_VAULT):
            return _left_to_ansible(path, "is encrypted with ansible-vault", place)
        data = yaml.safe_load(content)
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"-e @{path} cannot be read: {error}") from error
    except yaml.constructor.ConstructorError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}" if mark else "the file"
        return _left_to_ansible(path, f"has what only Ansible can read ({error.problem}, {where})", place)
    except (yaml.YAMLError, RecursionError) as error:
        raise OptionError(f"-e @{path} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise OptionError(f"-e @{path} holds no variables: it must be a mapping")
    # What JSON cannot express (dates, numbers as keys) is sent as YAML, which -e takes as well.
    return data if _is_json(data) else str(yaml.safe_dump(data, default_flow_style=True, width=math.inf)).strip()


def _left_to_ansible(path: str, why: str, place: _Place) -> str:
    """Leaves a file for Ansible to read, if the service has it. Raises OptionError otherwise."""
    if place.is_here and os.path.isfile(path):
        return f"@{path}"
    raise OptionError(
        f"-e @{path} {why}, and the service is on another machine; load it with vars_files in the playbook"
    )


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(_is_json(item) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | bool | int)


def _ansible_variables(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    return [pair for pair in sorted(environ.items()) if _VARIABLE.fullmatch(pair[0]) and pair[0] not in _KEPT_VARIABLES]


def _prompt_for_passwords(body: dict[str, Any], connection: bool, become: bool) -> None:
    try:
        given = _secret(body, "connection_password", "SSH password: " if connection else None)
        default = "[defaults to SSH password]" if connection else ""
        taken = _secret(body, "become_password", f"BECOME password{default}: " if become else None)
    except EOFError:
        return  # Ansible continues without them, too
    if become and connection and not taken and given:
        body["become_password"] = given


def _secret(body: dict[str, Any], field: str, prompt: str | None) -> str | None:
    """Adds a secret to the request: prompted for, or read from standard input if its file is `-`."""
    file = f"{field}_file"
    if prompt is not None:
        body.pop(file, None)
        secret = getpass.getpass(prompt)
    elif body.get(file) == "-":
        del body[file]
        secret = sys.stdin.read().strip("\r\n")
        if not secret:
            raise OptionError("Empty password was provided from file (-)")
    else:
        return None
    if secret:
        body[field] = secret
    return secret


def _prompting(body: Mapping[str, Any]) -> list[str]:
    """Returns the vault ids whose password is prompted for, each once."""
    labels = [text.partition("@")[0] for text in body.get("vault_id", []) if text.endswith("@prompt")]
    return list(dict.fromkeys(labels))


def _vault_password(label: str, prompt: str) -> str:
    try:
        password = getpass.getpass(prompt)
    except EOFError:
        raise OptionError(f"EOFError (ctrl-d) on prompt for ({label})") from None
    if not password.strip():
        raise OptionError(f"the vault password for {label} is empty")
    return password
