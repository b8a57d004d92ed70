"""Which ansible.cfg a run has, and when two runs may share a warm process.

That the choice is Ansible's own is tested against Ansible itself in tests/integration/test_forkserver.py.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import yaml

from flansible.worker import ansible_config
from flansible.worker.ansible_config import Configuration, configuration_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def directory(tmp_path: Path, home: Path) -> Path:
    directory = tmp_path / "plays"
    directory.mkdir(mode=0o755)
    return directory


def write(path: Path, text: str = "[defaults]\n") -> str:
    path.write_text(text)
    return str(path)


def of(directory: Path, **environ: str) -> Configuration:
    return configuration_of(str(directory), environ)


def test_two_plain_directories_share_one_configuration(directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert of(directory) == of(other)
    assert of(directory).config_file is None or of(directory).config_file == "/etc/ansible/ansible.cfg"


def test_a_directory_with_an_ansible_cfg_has_a_configuration_of_its_own(directory: Path, tmp_path: Path) -> None:
    own = write(directory / "ansible.cfg")
    other = tmp_path / "other"
    other.mkdir()
    write(other / "ansible.cfg")
    assert of(directory).config_file == own
    assert of(directory).directory == str(directory)
    assert of(directory) != of(other)


def test_a_world_writable_directory_is_not_trusted(directory: Path) -> None:
    write(directory / "ansible.cfg")
    directory.chmod(0o777)
    found = of(directory)
    assert found.config_file != str(directory / "ansible.cfg")
    # Ansible warns about it, in its own words: only a process that starts there can.
    assert found.directory == str(directory)


def test_the_users_configuration_comes_after_the_directorys(directory: Path, home: Path) -> None:
    users = write(home / ".ansible.cfg")
    assert of(directory).config_file == users
    own = write(directory / "ansible.cfg")
    assert of(directory).config_file == own


def test_a_file_in_ansible_config_comes_first(directory: Path, tmp_path: Path) -> None:
    named = write(tmp_path / "named.cfg")
    write(directory / "ansible.cfg")
    assert of(directory, ANSIBLE_CONFIG=named).config_file == named


def test_a_directory_in_ansible_config_means_the_file_in_it(directory: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    assert of(directory, ANSIBLE_CONFIG=str(place)).config_file != str(place / "ansible.cfg")
    named = write(place / "ansible.cfg")
    assert of(directory, ANSIBLE_CONFIG=str(place)).config_file == named


def test_an_ansible_config_that_does_not_exist_is_passed_over(directory: Path, tmp_path: Path) -> None:
    own = write(directory / "ansible.cfg")
    assert of(directory, ANSIBLE_CONFIG=str(tmp_path / "missing.cfg")).config_file == own


def test_a_relative_ansible_config_counts_from_the_runs_directory(directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for place in (directory, other):
        write(place / "x.cfg")
        found = of(place, ANSIBLE_CONFIG="x.cfg")
        assert found.config_file is not None and os.path.samefile(found.config_file, place / "x.cfg")
        assert found.directory == str(place)


def test_a_tilde_and_a_variable_in_ansible_config_are_expanded(
    directory: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = write(home / "named.cfg")
    monkeypatch.setenv("PLACE", str(home))
    for text in ("~/named.cfg", "$PLACE/named.cfg"):
        assert of(directory, ANSIBLE_CONFIG=text).config_file == named


def test_runs_that_share_a_named_file_share_a_process(directory: Path, tmp_path: Path) -> None:
    named = write(tmp_path / "named.cfg")
    other = tmp_path / "other"
    other.mkdir()
    assert of(directory, ANSIBLE_CONFIG=named) == of(other, ANSIBLE_CONFIG=named)


def test_a_file_that_mentions_the_working_directory_differs_by_directory(directory: Path, tmp_path: Path) -> None:
    named = write(tmp_path / "named.cfg", "[defaults]\nroles_path = {{CWD}}/roles\n")
    other = tmp_path / "other"
    other.mkdir()
    assert of(directory, ANSIBLE_CONFIG=named) != of(other, ANSIBLE_CONFIG=named)


RELATIVE = ("roles", "./roles", "/srv/roles:roles", "/srv/roles, roles", "$HOME/roles", "{{CWD}}/roles", "'roles'")


@pytest.mark.parametrize("value", RELATIVE)
def test_a_variable_with_a_relative_path_counts_from_the_directory(directory: Path, value: str) -> None:
    assert of(directory, ANSIBLE_ROLES_PATH=value).directory == str(directory)


def test_a_variable_with_absolute_paths_or_none_does_not_split_by_directory(directory: Path) -> None:
    for name, value in (
        ("ANSIBLE_ROLES_PATH", "/srv/roles:~/roles"),
        ("ANSIBLE_INVENTORY", "'/srv/hosts'"),
        ("ANSIBLE_FORKS", "9"),
        ("ANSIBLE_STDOUT_CALLBACK", "yaml"),
        ("ANSIBLE_SSH_ARGS", "-o ControlPersist=60s"),
        ("ANSIBLE_LIBRARY", ""),
    ):
        found = of(directory, **{name: value})
        assert (found.directory, found.environment) == ("/", ((name, value),))


def test_every_variable_of_ansible_that_holds_a_path_is_known() -> None:
    base = Path(require_ansible()) / "config" / "base.yml"
    paths = {
        variable["name"]
        for setting in yaml.safe_load(base.read_text()).values()
        for variable in setting.get("env") or ()
        if setting.get("type") in ("path", "pathlist", "pathspec", "temppath", "tmp", "tmppath")
    }
    assert len(paths) > 30
    assert {name for name in paths if not ansible_config._PATHS_VARIABLE.fullmatch(name)} == set()


def test_every_variable_of_ansible_belongs_to_the_configuration() -> None:
    base = Path(require_ansible()) / "config" / "base.yml"
    settings = yaml.safe_load(base.read_text()).values()
    names = {variable["name"] for setting in settings for variable in setting.get("env") or ()} - {"EDITOR"}
    assert len(names) > 200
    assert {name for name in names if not ansible_config._READ_ON_LOADING.match(name)} == set()


def require_ansible() -> str:
    spec = importlib.util.find_spec("ansible")
    assert spec is not None and spec.submodule_search_locations is not None
    return spec.submodule_search_locations[0]


@pytest.mark.parametrize("where", ["directory", "home"])
def test_an_edit_of_the_file_makes_another_configuration(directory: Path, home: Path, where: str) -> None:
    path = directory / "ansible.cfg" if where == "directory" else home / ".ansible.cfg"
    write(path)
    before = of(directory)
    assert of(directory) == before
    write(path, "[defaults]\nforks = 7\n")
    edited = of(directory)
    assert edited != before
    assert (edited.directory, edited.config_file) == (before.directory, before.config_file)


def test_a_replaced_file_of_equal_size_and_time_makes_another_configuration(directory: Path) -> None:
    path = directory / "ansible.cfg"
    write(path, "[defaults]\nforks = 7\n")
    before = of(directory)
    status = path.stat()
    other = directory / "new"
    write(other, "[defaults]\nforks = 8\n")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert of(directory) != before


def test_a_file_that_appears_is_seen_by_the_next_run(directory: Path) -> None:
    before = of(directory)
    write(directory / "ansible.cfg")
    assert of(directory) != before
    (directory / "ansible.cfg").unlink()
    assert of(directory) == before


def test_a_directory_that_is_gone_still_has_a_configuration(tmp_path: Path, home: Path) -> None:
    assert of(tmp_path / "gone").directory == "/"
