"""The fast ssh profile in Ansible's own words: which options have which value, and where from. No connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ASK = """
import json, sys
from flansible.runner import plugin_options_cache, preload, ssh_profile
preload.load()
from ansible import constants
from ansible.plugins.loader import connection_loader, init_plugin_loader
directory, variables = json.loads(sys.argv[1])
before = repr(plugin_options_cache._recorded)
ssh_profile.apply(directory)
init_plugin_loader()
for plugin in ("ssh", "local"):
    connection_loader.get(plugin, class_only=True)

def value(option):
    plugin, name = option.split(".")
    found = constants.config.get_config_value(
        name, plugin_type="connection", plugin_name=plugin, variables=variables)
    return str(found)

options = ["ssh.pipelining", "ssh.control_path_dir", "ssh.ssh_args", "ssh.control_path", "local.pipelining"]
values = {option: value(option) for option in options}
print(json.dumps({"same": before == repr(plugin_options_cache._recorded), **values}))
"""


def ask(place: Path, directory: str | None, variables: dict[str, Any] | None = None, **environ: str) -> dict[str, Any]:
    """The values of the connection plugins' options in a run of `place`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "FLANSIBLE_"))}
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps([directory, variables or {}])],
        cwd=place,
        env={**clean, "HOME": str(place), **environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path


def test_without_the_profile_nothing_is_changed(place: Path) -> None:
    found = ask(place, None)
    assert found["same"]
    assert found["ssh.pipelining"] == "False"
    assert found["ssh.control_path_dir"] == "~/.ansible/cp"


def test_with_the_profile_ssh_has_other_defaults_and_local_has_not(place: Path) -> None:
    plain, fast = ask(place, None), ask(place, "/masters")
    changed = {name for name in plain if plain[name] != fast[name]}
    assert changed == {"same", "ssh.pipelining", "ssh.control_path_dir"}
    assert (fast["ssh.pipelining"], fast["ssh.control_path_dir"]) == ("True", "/masters")


@pytest.mark.by_day(1)
@pytest.mark.parametrize("section", ["defaults", "connection", "ssh_connection"])
def test_ansible_cfg_wins(place: Path, section: str) -> None:
    text = f"[{section}]\npipelining = False\n[ssh_connection]\ncontrol_path_dir = /theirs\n"
    (place / "ansible.cfg").write_text(
        text.replace("[ssh_connection]\ncontrol", "control", section == "ssh_connection")
    )
    found = ask(place, "/masters")
    assert (found["ssh.pipelining"], found["ssh.control_path_dir"]) == ("False", "/theirs")


@pytest.mark.by_day(1)
@pytest.mark.parametrize("variable", ["ANSIBLE_PIPELINING", "ANSIBLE_SSH_PIPELINING"])
def test_the_environment_wins(place: Path, variable: str) -> None:
    found = ask(place, "/masters", **{variable: "0", "ANSIBLE_SSH_CONTROL_PATH_DIR": "/theirs"})
    assert (found["ssh.pipelining"], found["ssh.control_path_dir"]) == ("False", "/theirs")


def test_a_variable_of_the_inventory_wins(place: Path) -> None:
    found = ask(place, "/masters", {"ansible_ssh_pipelining": False, "ansible_control_path_dir": "/theirs"})
    assert (found["ssh.pipelining"], found["ssh.control_path_dir"]) == ("False", "/theirs")
