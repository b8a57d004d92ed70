"""A project's requirements: found in its tree, installed by ansible-galaxy, shared by all commits with the same file.

The key is a digest of the file, the Ansible version and the settings of Galaxy: not the commit, so an unchanged file
costs nothing at the next one. The worker looks whether they are there, a run process of the runner installs them.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
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
_GALAXY_SECTION = re.compile(r"galaxy(_server\..*)?$")
_GALAXY_VARIABLE = re.compile(r"ANSIBLE_GALAXY_\w+$")
_HAS_ROLES = re.compile(rb"^roles\s*:", re.MULTILINE)
_HAS_COLLECTIONS = re.compile(rb"^collections\s*:", re.MULTILINE)
_ROLES_PATH = "~/.ansible/roles:/usr/share/ansible/roles:/etc/ansible/roles"
_COLLECTIONS_PATH = "~/.ansible/collections:/usr/share/ansible/collections"
_SHOWN_LINES = 100


@dataclass(frozen=True)
class Requirements:
    """What a tree requires. files: below its root; key: on the shelf."""

    files: tuple[str, ...]
    key: str


def of(tree: Path, wanted: str) -> Requirements | None:
    """Returns what a tree requires; None if nothing. wanted: `auto`, `none`, or a file's path. Raises ProjectError."""
    if wanted == NONE:
        return None
    names = [name for name in _LOOKED_FOR if (tree / name).is_file()] if wanted == AUTO else [wanted]
    digest = sha256()
    for name in names:
        try:
            with open(tree / name, "rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise ProjectError(f"requirements {name}: {error.strerror}") from None
        if len(data) > _MOST_BYTES:
            raise ProjectError(f"requirements {name} is larger than {_MOST_BYTES} bytes")
        digest.update(repr((name, data)).encode())
    if not names:
        return None
    digest.update(repr((_ansible(), sys.version_info[:2], _settings(tree))).encode())
    return Requirements(tuple(names), digest.hexdigest()[:32])


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
    """Installs into a folder, with the settings of the tree's ansible.cfg; returns what Galaxy said.

    Raises ProjectError with Galaxy's own words.
    """
    said = ""
    (folder / "roles").mkdir()
    (folder / "collections").mkdir()
    for name in found.files:
        data = (tree / name).read_bytes()
        # A file of the old form is a list of roles.
        has_collections = bool(_HAS_COLLECTIONS.search(data))
        if has_collections or name.startswith("collections/"):
            said += _galaxy(git, "collection", ("-p", str(folder / "collections")), tree, name, folder)
        if _HAS_ROLES.search(data) or not (has_collections or name.startswith("collections/")):
            said += _galaxy(git, "role", ("-p", str(folder / "roles")), tree, name, folder)
    return said


def _galaxy(git: GitRunner, kind: str, where: tuple[str, ...], tree: Path, name: str, folder: Path) -> str:
    program = os.path.join(os.path.dirname(sys.executable), "ansible-galaxy")
    own = git.private / "home"
    environment = {
        **{key: value for key, value in os.environ.items() if key.startswith("ANSIBLE_GALAXY_")},
        "ANSIBLE_HOME": str(own / ".ansible"),
        "ANSIBLE_LOCAL_TEMP": str(own / "tmp"),
        "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
        "ANSIBLE_ROLES_PATH": str(folder / "roles"),
        "ANSIBLE_NOCOLOR": "1",
        "GIT_ALLOW_PROTOCOL": "https:http:ssh:git",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
    }
    command = [program, kind, "install", "-r", str(tree / name), *where]
    # In the tree's root: its ansible.cfg counts, and so do paths in the file.
    done = git.execute(command, (folder,), environment, tree)
    text = (done.stdout + done.stderr).decode(errors="replace").strip()
    if done.returncode != 0:
        lines = "\n".join(text.splitlines()[-_SHOWN_LINES:])
        raise ProjectError(f"ansible-galaxy {kind} install -r {name} ended with exit code {done.returncode}\n{lines}")
    return text + "\n"


def _ansible() -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("ansible-core")
    return ""


def _settings(cwd: Path) -> list[tuple[str, str, str]]:
    """Returns the settings of Galaxy: of ansible.cfg and the environment."""
    found = [("", name, value) for name, value in os.environ.items() if _GALAXY_VARIABLE.match(name)]
    parser = _parsed(cwd / "ansible.cfg")
    for section in parser.sections():
        if _GALAXY_SECTION.match(section):
            found += [(section, name, value) for name, value in parser.items(section)]
    return sorted(found)


def _section(path: Path, section: str) -> dict[str, str]:
    parser = _parsed(path)
    return dict(parser.items(section)) if parser.has_section(section) else {}


def _parsed(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    with contextlib.suppress(OSError, ValueError, configparser.Error):
        if path.is_file() and path.stat().st_size <= _MOST_BYTES:
            parser.read_string(path.read_text(encoding="utf-8-sig"))
    return parser
