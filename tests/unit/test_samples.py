"""The files a checkout brings: samples that load, and lists of versions that belong together."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flansible import config
from flansible.config import KEYS, Settings
from flansible.identity import users as rbac_users

TOP = Path(__file__).parents[2]


def test_config_ini_loads_and_shows_each_key_with_its_default() -> None:
    text = (TOP / "config.ini").read_text(encoding="utf-8")
    settings = config.load(str(TOP / "config.ini"), environ={})
    assert settings.default_inventory == str(TOP / "inventories/dev")
    shown = dict(re.findall(r"^#?(\w+) = ?(.*)$", text, re.MULTILINE))
    assert tuple(shown) == KEYS
    # What is not set by default is shown with an example.
    set_here = {key for key in KEYS if Settings.model_fields[key].default is None}
    defaults = {key: str(Settings.model_fields[key].default) for key in KEYS if key not in set_here}
    assert {key: value for key, value in shown.items() if key not in set_here} == defaults


def test_rbac_json_loads_and_limits_dev_to_its_inventory() -> None:
    users = rbac_users.RbacFile(TOP / "rbac.json").users()
    assert set(users) == {"admin", "dev"}
    assert users["dev"].inventories == (TOP / "inventories/dev",)


def test_sample_playbooks_are_yaml() -> None:
    found = sorted((TOP / "playbooks").rglob("*.yml"))
    assert found
    for path in found:
        assert yaml.safe_load(path.read_text(encoding="utf-8")), path


def _pins(name: str) -> dict[str, str]:
    lines = (TOP / name).read_text(encoding="utf-8").splitlines()
    pins = {}
    for line in lines:
        if line and not line.startswith(("#", "-r ")):
            requirement = Requirement(line)
            assert str(requirement.specifier).startswith("=="), f"{name}: {line} is not pinned"
            pins[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return pins


def _ranges(keyword: str) -> list[Requirement]:
    """install_requires of setup.py, or one of its extras."""
    call = next(
        node
        for node in ast.walk(ast.parse((TOP / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setup"
    )
    given = {item.arg: item.value for item in call.keywords if item.arg in ("install_requires", "extras_require")}
    required = ast.literal_eval(given["install_requires"])
    return [
        Requirement(line)
        for line in (required if keyword == "" else ast.literal_eval(given["extras_require"])[keyword])
    ]


def test_the_pinned_versions_are_within_the_ranges_of_setup_py() -> None:
    for extra, name in (("", "requirements.txt"), ("test", "requirements-test.txt")):
        pins = _pins(name)
        for requirement in _ranges(extra):
            pinned = pins[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(pinned), f"{name}: {requirement.name} {pinned}"


def test_the_tests_need_nothing_in_another_version_than_the_service() -> None:
    assert not set(_pins("requirements.txt")) & set(_pins("requirements-test.txt"))
