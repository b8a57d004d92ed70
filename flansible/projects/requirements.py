"""A project's requirements: found in its tree, installed by ansible-galaxy, shared by all commits with the same file.

The key is a digest of the file, the Ansible version and the settings of Galaxy: not the commit, so an unchanged file
costs nothing at the next one. Galaxy then runs where it finds nothing of the tree. If the file names others of the
tree, the commit is part of the key. The worker looks whether they are there, a run process of the runner installs them.
"""

from __future__ import annotations

import configparser
import contextlib
import io
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from flansible.errors import ProjectError
from flansible.projects.git_command import GitRunner

AUTO, NONE = "auto", "none"
_LOOKED_FOR = tuple(
    f"{folder}requirements.{end}" for folder in ("", "roles/", "collections/") for end in ("yml", "yaml")
)
_MOST_BYTES = 1024 * 1024
_MOST_SEARCHED_BYTES = 64 * 1024
# What a repository's ansible.cfg may say to ansible-galaxy. Other options name programs and files.
_SIGNATURE_OPTIONS = (
    "disable_gpg_verify gpg_keyring required_valid_signature_count ignore_signature_status_codes"
).split()
_GALAXY_OPTIONS = ["server", "server_list", "server_timeout", "ignore_certs", *_SIGNATURE_OPTIONS]
_SERVER_OPTIONS = (
    "url username password token auth_url api_version validate_certs client_id client_secret timeout"
).split()
_SERVER = re.compile(r"galaxy_server\.")
_GALAXY_VARIABLE = re.compile(r"ANSIBLE_GALAXY_\w+$")
_NAMES_SERVER = re.compile(r"ANSIBLE_GALAXY_(SERVER(_LIST|_\w+_\w+)?|TOKEN_PATH)$")
_SECRET = re.compile(r"_(TOKEN|TOKEN_PATH|USERNAME|PASSWORD|AUTH_URL|CLIENT_ID|CLIENT_SECRET)$")
_COMMENT = re.compile(r"(^|\s)#.*", re.MULTILINE)
_BETWEEN_WORDS = re.compile(r"[\s'\",+\[\]{}]+")
_HAS_ROLES = re.compile(rb"^roles\s*:", re.MULTILINE)
_HAS_COLLECTIONS = re.compile(rb"^collections\s*:", re.MULTILINE)
_ROLES_PATH = "~/.ansible/roles:/usr/share/ansible/roles:/etc/ansible/roles"
_COLLECTIONS_PATH = "~/.ansible/collections:/usr/share/ansible/collections"
_SHOWN_LINES = 100


@dataclass(frozen=True)
class Requirements:
    """What a tree requires.

    files: by their paths in it; key: on the shelf; configuration, variables: an ansible.cfg and an environment for
    Galaxy; reads_tree: whether they name files of the tree.
    """

    files: dict[str, bytes]
    key: str
    configuration: str
    variables: dict[str, str] = field(repr=False)
    reads_tree: bool


def of(tree: Path, wanted: str, is_admins: bool) -> Requirements | None:
    """Returns what a tree requires; None if nothing. Raises ProjectError.

    wanted: `auto`, `none`, or a file's path; is_admins: whether Galaxy gets the operator's tokens.
    """
    if wanted == NONE:
        return None
    names = [name for name in _LOOKED_FOR if (tree / name).is_file()] if wanted == AUTO else [wanted]
    files = {}
    for name in names:
        try:
            with open(tree / name, "rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise ProjectError(f"requirements {name}: {error.strerror}") from None
        if len(data) > _MOST_BYTES:
            raise ProjectError(f"requirements {name} is larger than {_MOST_BYTES} bytes")
        files[name] = data
    if not files:
        return None
    variables, configuration = _variables(is_admins), _configuration(tree)
    reads_tree = any(_names_files(tree, data) for data in files.values())
    settings = (_ansible(), sys.version_info[:2], configuration, sorted(variables.items()))
    # A tree's name has its commit.
    digest = sha256(repr((files, settings, tree.name if reads_tree else "")).encode())
    return Requirements(files, digest.hexdigest()[:32], configuration, variables, reads_tree)


def environment(installed: Path, cwd: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables by which Ansible finds what is installed, before what it would find without them."""
    defaults = _section(cwd / "ansible.cfg", "defaults")
    found = {}
    for kind, variables, options, default in (
        ("roles", ("ANSIBLE_ROLES_PATH",), ("roles_path",), _ROLES_PATH),
        (
            "collections",
            ("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_COLLECTIONS_PATHS"),
            ("collections_path", "collections_paths"),
            _COLLECTIONS_PATH,
        ),
    ):
        rest = next((value for name in variables if (value := given.get(name) or os.environ.get(name))), None)
        if rest is None:
            text = next((defaults[name] for name in options if name in defaults), default)
            rest = ":".join(os.path.join(cwd, os.path.expanduser(part)) for part in text.split(":") if part)
        found[variables[0]] = f"{installed / kind}:{rest}"
    return found


def install(git: GitRunner, tree: Path, found: Requirements, folder: Path) -> str:
    """Installs into a folder, with the settings of Galaxy in the tree's ansible.cfg; returns what Galaxy said.

    Raises ProjectError with Galaxy's own words.
    """
    said = ""
    _configuration_file(git).write_text(found.configuration, encoding="utf-8")
    (folder / "roles").mkdir()
    (folder / "collections").mkdir()
    start = tree if found.reads_tree else git.private / "requirements"
    for name, data in found.files.items():
        if not found.reads_tree:
            (start / name).parent.mkdir(parents=True, exist_ok=True)
            (start / name).write_bytes(data)
        # A file of the old form is a list of roles.
        has_collections = bool(_HAS_COLLECTIONS.search(data))
        if has_collections or name.startswith("collections/"):
            said += _galaxy(git, found, "collection", start, name, folder)
        if _HAS_ROLES.search(data) or not (has_collections or name.startswith("collections/")):
            said += _galaxy(git, found, "role", start, name, folder)
    return said


def _galaxy(git: GitRunner, found: Requirements, kind: str, start: Path, name: str, folder: Path) -> str:
    program = os.path.join(os.path.dirname(sys.executable), "ansible-galaxy")
    own = git.private / "home"
    environment = {
        **found.variables,
        "ANSIBLE_CONFIG": str(_configuration_file(git)),
        "ANSIBLE_HOME": str(own / ".ansible"),
        "ANSIBLE_LOCAL_TEMP": str(own / "tmp"),
        "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
        "ANSIBLE_ROLES_PATH": str(folder / "roles"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_NOCOWS": "1",
        "GIT_ALLOW_PROTOCOL": "https:http:ssh:git",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
    }
    command = [program, kind, "install", "-r", str(start / name), "-p", str(folder / f"{kind}s")]
    # Paths in the file count from there.
    done = git.execute(command, (folder,), environment, start)
    text = (done.stdout + done.stderr).decode(errors="replace").strip()
    if done.returncode != 0:
        lines = "\n".join(text.splitlines()[-_SHOWN_LINES:])
        raise ProjectError(f"ansible-galaxy {kind} install -r {name} ended with exit code {done.returncode}\n{lines}")
    return text + "\n"


def _names_files(tree: Path, data: bytes) -> bool:
    """Whether a word or a value of requirements is a path in the tree. One that is not seen here Galaxy cannot read."""
    if len(data) > _MOST_SEARCHED_BYTES:
        return True
    text = _COMMENT.sub("", data.decode(errors="replace"))
    values = (line.partition(": ")[2].strip(" '\"") for line in text.splitlines())
    return any(os.path.exists(tree / word) for word in {*_BETWEEN_WORDS.split(text), *values} if word)


def _ansible() -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("ansible-core")
    return ""


def _configuration_file(git: GitRunner) -> Path:
    return git.private / "ansible.cfg"


def _configuration(tree: Path) -> str:
    """Returns an ansible.cfg with what the tree's says of Galaxy, and nothing else: `cowpath` names a program."""
    given, kept = _parsed(tree / "ansible.cfg"), configparser.ConfigParser(interpolation=None)
    # A repository that could name a server, or options of one, would be sent the operator's tokens.
    has_servers = any(_NAMES_SERVER.match(name) for name in os.environ)
    for section in given.sections():
        allowed = []
        if section == "galaxy":
            allowed = _SIGNATURE_OPTIONS if has_servers else _GALAXY_OPTIONS
        elif _SERVER.match(section) and not has_servers:
            allowed = _SERVER_OPTIONS
        options = {name: value for name, value in given.items(section) if name in allowed}
        if "gpg_keyring" in options:
            options["gpg_keyring"] = str(tree / options["gpg_keyring"])
        if options:
            kept[section] = options
    text = io.StringIO()
    kept.write(text)
    return text.getvalue()


def _variables(is_admins: bool) -> dict[str, str]:
    """Returns the operator's settings of Galaxy, with tokens for a project of admin's alone."""
    found = {name: value for name, value in os.environ.items() if _GALAXY_VARIABLE.match(name)}
    if is_admins:
        return found
    return {name: value for name, value in found.items() if not (_SECRET.search(name) or "@" in value)}


def _section(path: Path, section: str) -> dict[str, str]:
    with contextlib.suppress(ProjectError):
        parser = _parsed(path)
        return dict(parser.items(section)) if parser.has_section(section) else {}
    return {}


def _parsed(path: Path) -> configparser.ConfigParser:
    """Reads a configuration as Ansible does; an empty one if there is none. Raises ProjectError."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, inline_comment_prefixes=(";",))
    if path.is_file():
        if path.stat().st_size > _MOST_BYTES:
            raise ProjectError(f"{path.name} is larger than {_MOST_BYTES} bytes")
        try:
            parser.read_string(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, configparser.Error) as error:
            raise ProjectError(f"{path.name} cannot be read: {' '.join(str(error).split())}") from None
    return parser
