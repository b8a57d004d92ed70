"""What a confined run sees of the disk, asked of real sandboxes: layouts that put what is private near what is not."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis

from flansible.config import Settings, load
from flansible.models import Confinement
from flansible.worker import homes, sandbox
from flansible.worker.ansible_config import configuration_of
from flansible.worker.inventory_names import InventoryNames
from flansible.worker.runner_process import StartedProcess
from tests.helpers.waiting import eventually, require_program
from tests.unit.layouts import Layout, built, layouts


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of a service, outside of /tmp's usual names, since a sandbox has a /tmp of its own."""
    require_program("bwrap")
    path = Path(tempfile.mkdtemp(prefix="flansible-sandbox-"))
    for name in ("config.ini", "rbac.json", "inventories/dev/hosts", "inventories/prod/hosts", "playbooks/site.yml"):
        write(path / name)
    yield path
    shutil.rmtree(path)


def write(path: Path, text: str = "text\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def settings(place: Path, **changes: Any) -> Settings:
    write(place / "config.ini", "[Default]\n" + "".join(f"{key} = {value}\n" for key, value in changes.items()))
    return load(str(place / "config.ini"), {})


def build(place: Path, *readable: str, hidden: tuple[str, ...] = (), **changes: Any) -> sandbox.Sandbox:
    confinement = Confinement(
        readable=tuple(str(place / path) for path in readable), hidden=tuple(str(place / path) for path in hidden)
    )
    return sandbox.build("dev", confinement, None, settings(place, **changes))


def inside(one: sandbox.Sandbox, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*one.arguments, "--", *command], env=dict(one.environment), capture_output=True, text=True, timeout=30
    )


def seen(one: sandbox.Sandbox, place: Path) -> set[str]:
    """Files below `place`, as the sandbox has them."""
    found = inside(one, "find", str(place), "!", "-type", "d").stdout.splitlines()
    return {os.path.relpath(path, place) for path in found}


def test_inventories_of_the_user_and_playbooks_are_seen_and_nothing_else(place: Path) -> None:
    write(place / "secret.key")
    assert seen(build(place, "inventories/dev"), place) == {"inventories/dev/hosts", "playbooks/site.yml"}


def test_a_home_of_ones_own_is_kept_and_tmp_is_not(place: Path) -> None:
    one = build(place, "inventories/dev")
    assert inside(one, "sh", "-c", "echo kept > ~/file; echo gone > /tmp/file; echo ~").stdout == f"{homes.HOME}\n"
    assert inside(one, "sh", "-c", "cat ~/file; ls /tmp/file").stdout == "kept\n"
    home = homes.home_of("dev", place / ".flansible")
    assert (home / "file").read_text() == "kept\n" and home.stat().st_mode & 0o777 == 0o700


# Each tries to have `$1` below the home hold a file `x`, or be one.
_WAYS = (
    'echo x > "$1"', 'echo x > "$1/x"', 'mkdir -p "$1/y"', 'chmod 777 "$1"', 'rm -rf "$1"', 'rmdir "$1"',
    'mv "$1" ~/moved', 'mv -T ~/other "$1"', 'mv ~/file "$1"', 'cp ~/file "$1"', 'ln -sfnT ~/other "$1"',
    'ln -fT ~/file "$1"', 'python3 -c "import os, sys; os.rename(os.environ[\'HOME\'] + \'/file\', sys.argv[1])" "$1"',
)  # fmt: skip


def loaded(home: Path) -> dict[str, Any]:
    """What lies where programs load code from a home."""
    found: dict[str, Any] = {}
    for name in homes.CODE_FILES:
        found[name] = (home / name).lstat().st_mode, (home / name).read_bytes()
    for name in (*homes.CODE_FOLDERS, ".ansible.cfg"):
        found[name] = (home / name).lstat().st_mode, [path.name for path in (home / name).iterdir()]
    return found


def test_no_run_can_write_what_programs_load_from_its_home(place: Path) -> None:
    one, home = build(place, data_dir=place), homes.home_of("dev", place)
    before = loaded(home)
    names = {*homes.CODE_FOLDERS, *homes.CODE_FILES, ".ansible.cfg"}
    around = sorted({os.path.dirname(name) for name in names} - {""})
    for name in (*around, *sorted(names)):
        script = "; ".join(f"mkdir -p ~/other; echo x > ~/other/x; echo x > ~/file; {way}" for way in _WAYS)
        inside(one, "sh", "-c", script, "-", f"{homes.HOME}/{name}")
        assert loaded(home) == before, name
    assert (home / "file").read_text() == "x\n"
    assert inside(one, "sh", "-c", "echo x > ~/.ssh/known_hosts; mkdir ~/.ansible/tmp; echo made").stdout == "made\n"


def test_each_place_of_a_home_from_which_ansible_loads_is_among_those_that_no_run_can_write() -> None:
    folder = Path(importlib.metadata.distribution("ansible-core").locate_file("ansible"))  # type: ignore[arg-type]
    entries = yaml.safe_load((folder / "config/base.yml").read_text())
    defaults = [str(entry.get("default")).replace('{{ ANSIBLE_HOME ~ "', "~/.ansible") for entry in entries.values()]
    found = {part.rstrip('" }') for text in defaults for part in text.split(":") if part.startswith("~/")}
    data = {"~/.ansible", *(f"~/.ansible/{name}" for name in ("tmp", "pc", "galaxy_cache", "galaxy_token"))}
    assert {path.split("/plugins/")[0] for path in found} >= {
        "~/.ansible",
        "~/.ansible/roles",
        "~/.ansible/collections",
    }
    code = tuple(f"~/{name}" for name in homes.CODE_FOLDERS)
    assert [path for path in sorted(found - data) if not path.startswith(code)] == []


@pytest.mark.by_day(4)
@pytest.mark.parametrize("name", [".ansible", ".ansible/plugins", ".ansible/roles", ".ssh", ".ssh/config", ".bashrc"])
@pytest.mark.parametrize("target", ["nowhere", "/nowhere", ".", "/root", "../x", None], ids=str)
def test_what_a_run_of_an_older_version_has_put_in_such_a_place_is_taken_away(
    name: str, target: str | None, place: Path
) -> None:
    home = homes.make_home("dev", place)
    fresh = loaded(home)
    path = home / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if target is not None:
        path.symlink_to(target)
    elif name in homes.CODE_FILES:
        write(path / "file")
    else:
        path.write_text("no folder")
    assert inside(build(place, data_dir=place), "sh", "-c", "mkdir ~/.ansible/x && echo made").stdout == "made\n"
    assert loaded(home) == fresh
    assert target is not None or len([*path.parent.glob("replaced-*/*")]) == 1


def test_a_run_cannot_close_its_home_to_the_users_next_one(place: Path) -> None:
    home = homes.make_home("dev", place)
    folders = [home, home / ".ansible", home / ".ansible/tmp", home / ".ssh"]
    for folder in reversed(folders):
        folder.chmod(0)
    homes.make_home("dev", place)
    assert [oct(folder.stat().st_mode & 0o700) for folder in folders] == ["0o700"] * 4
    outside = place / "closed"
    outside.mkdir(mode=0o500)
    for target in ("/nowhere", outside):
        (home / ".ansible/tmp").rmdir()
        (home / ".ansible/tmp").symlink_to(target)
        homes.make_home("dev", place)
        assert (home / ".ansible/tmp").is_dir() and not (home / ".ansible/tmp").is_symlink()
    assert outside.stat().st_mode & 0o700 == 0o500, "no link is followed"


def test_an_ansible_cfg_that_the_operator_puts_into_a_home_is_in_force_and_no_other(place: Path) -> None:
    one = build(place, data_dir=place)
    assert configuration_of("/", sandbox=one).config_file is None
    assert inside(one, "sh", "-c", "ls ~/.ansible.cfg").returncode != 0
    (homes.home_of("dev", place) / ".ansible.cfg").rmdir()
    write(homes.home_of("dev", place) / ".ansible.cfg", "[defaults]\nforks = 3\n")
    one = build(place, data_dir=place)
    assert "forks" in inside(one, "sh", "-c", "echo x > ~/.ansible.cfg; cat ~/.ansible.cfg").stdout


def test_keys_copied_as_the_documents_say_follow_no_link_of_the_users(place: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/ssh-keys.md").read_text().splitlines()
    install = next(line for line in page if line.startswith("install "))
    add = next(line for line in page if "| dd " in line).partition("| ")[2]
    folder, outside = homes.make_home("dev", place) / ".ssh", write(place / "victim")
    environ = {**os.environ, "DEV": str(folder), "KEYS": str(tmp_path)}
    for target in (outside, outside.parent, place / "missing"):
        (tmp_path / "known_hosts").write_text("host key\n")
        (folder / "known_hosts").unlink(missing_ok=True)
        (folder / "known_hosts").symlink_to(target)
        refused = subprocess.run(["bash", "-c", f"echo x | {add}"], env=environ, capture_output=True)
        assert refused.returncode != 0
        subprocess.run(["bash", "-c", install.partition(" && ")[0]], env=environ, check=True)
        assert not (folder / "known_hosts").is_symlink() and (folder / "known_hosts").read_text() == "host key\n"
    subprocess.run(["bash", "-c", f"echo x | {add}"], env=environ, check=True)
    assert (folder / "known_hosts").read_text() == "host key\nx\n"
    assert outside.read_text() == "text\n" and not (place / "missing").exists()


@pytest.mark.parametrize("user", ["../other", "a/b", "..", "a b", "ü", "x" * 200, ".hidden"])
def test_odd_user_names_have_homes_of_their_own_too(user: str, place: Path) -> None:
    home = homes.make_home(user, place)
    assert home.parent == place / "homes" and home.is_dir() and home != homes.home_of("dev", place)


def test_each_entry_of_a_user_has_a_sandbox_and_a_home_of_its_own(place: Path) -> None:
    """What a run by one entry leaves, or the keys that the operator puts there, is nothing for runs by another."""
    found, limits = settings(place), Confinement(readable=(str(place / "inventories/dev"),))
    own, ops, web = (sandbox.build(name, limits, None, found) for name in ("dev", "dev:group:ops", "dev:group:web"))
    assert len({own, ops, web}) == 3 == len({own.home, ops.home, web.home})
    write(homes.home_of("dev:group:ops", found.data_dir) / ".ssh/id", "the key for prod")
    look = ("sh", "-c", "cat ~/.ssh/id; cat /tmp/left ~/left; echo of $0 | tee /tmp/left > ~/left")
    assert "the key for prod" in inside(ops, *look).stdout
    assert inside(own, *look).stdout == inside(web, *look).stdout == ""
    assert "of sh" in inside(own, *look).stdout, "its own home stays"


def test_no_user_has_the_home_of_a_member(place: Path) -> None:
    names = ["lee", "lee:group:ops", "lee+ops", "lee+", "=lee+ops", "lee:group:a+b", "lee:group:a/b", "lee:group:lee"]
    assert len({homes.home_of(name, place) for name in names}) == len(names)
    assert {homes.home_of(name, place).parent for name in names} == {place / "homes"}


def test_ssh_finds_the_home_by_the_user_and_not_by_a_variable(place: Path) -> None:
    one = build(place)
    said = inside(one, "python3", "-c", "import os, pwd; print(pwd.getpwuid(os.getuid()).pw_dir)")
    assert said.stdout.strip() == homes.HOME


def test_the_environment_is_not_the_services(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_THE_SERVICE", "secret")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", "/etc/vault")
    names = {name for name, _ in build(place).environment}
    assert "HOME" in names and "PATH" in names
    assert not names & {"TOKEN_OF_THE_SERVICE", "ANSIBLE_VAULT_PASSWORD_FILE"}


@pytest.mark.parametrize("key", ["rbac_file", "secret_key_file", "data_dir"])
def test_what_is_private_is_not_seen_even_among_the_playbooks(key: str, place: Path) -> None:
    write(place / "playbooks/private/file")
    name = "private" if key == "data_dir" else "private/file"
    one = build(place, "inventories/dev", **{key: f"playbooks/{name}"})
    assert seen(one, place) == {"inventories/dev/hosts", "playbooks/site.yml"}


def test_config_ini_among_the_playbooks_is_not_seen(place: Path) -> None:
    assert seen(build(place, "inventories/dev", playbook_root="."), place) == {
        "inventories/dev/hosts",
        "playbooks/site.yml",
    }


def test_what_is_private_is_not_seen_even_in_an_inventory(place: Path) -> None:
    write(place / "inventories/dev/rbac.json")
    one = build(place, "inventories/dev", rbac_file="inventories/dev/rbac.json")
    assert seen(one, place) == {"inventories/dev/hosts", "playbooks/site.yml"}


def test_a_private_file_that_is_replaced_stays_unseen(place: Path) -> None:
    """What is written anew and renamed into its place, as `flansible passwd` does."""
    write(place / "playbooks/rbac.json")
    one = build(place, rbac_file="playbooks/rbac.json")
    script = f"echo begun; for one in $(seq 100); do cat {place}/playbooks/rbac.json 2>/dev/null; sleep 0.02; done"
    with subprocess.Popen([*one.arguments, "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        write(place / "playbooks/new", "replaced\n").rename(place / "playbooks/rbac.json")
        assert process.stdout.read() == ""


@pytest.mark.parametrize("readable", ["playbooks/inventories/dev", "playbooks/inventories/dev/hosts"])
def test_other_inventories_among_the_playbooks_are_not_seen(readable: str, place: Path) -> None:
    for name in ("inventories/dev/hosts", "inventories/prod/hosts", "project/site.yml", "project/inventories/prod"):
        write(place / "playbooks" / name)
    assert seen(build(place, readable), place) == {
        "playbooks/site.yml",
        "playbooks/project/site.yml",
        "playbooks/inventories/dev/hosts",
    }


def test_inventories_of_any_name_beside_the_users_are_not_seen(place: Path) -> None:
    for name in (
        "stages/dev",
        "stages/prod",
        "stages/production/hosts",
        "stages/group_vars/all",
        "roles/x/tasks/main.yml",
    ):
        write(place / "playbooks" / name)
    assert seen(build(place, "playbooks/stages/dev"), place) == {
        "playbooks/site.yml",
        "playbooks/roles/x/tasks/main.yml",
        "playbooks/stages/dev",
        "playbooks/stages/group_vars/all",
    }


def test_an_inventory_that_is_anothers_is_not_seen_wherever_it_lies(place: Path) -> None:
    write(place / "playbooks/deep/down/prod/hosts")
    write(place / "playbooks/deep/down/site.yml")
    one = build(place, "inventories/dev", hidden=("playbooks/deep/down/prod", "."))
    assert seen(one, place) == {"inventories/dev/hosts", "playbooks/site.yml", "playbooks/deep/down/site.yml"}


def test_variables_beside_an_inventory_file_are_those_of_its_hosts_and_groups(place: Path) -> None:
    folder = place / "inventories/all"
    write(folder / "dev.ini", "[web]\nweb[01:50].example.com\n[all:children]\nweb\n[data]\ndb1 ansible_host=10.0.0.1\n")
    write(folder / "prod.ini", "[shop]\nshop1\n")
    for name in ("all.yml", "web.yml", "shop.yml"):
        write(folder / "group_vars" / name)
    for name in ("db1/main.yml", "web07.example.com.yml", "shop1.yml"):
        write(folder / "host_vars" / name)
    found = {path.removeprefix("inventories/all/") for path in seen(build(place, "inventories/all/dev.ini"), place)}
    assert found == {
        *("dev.ini", "group_vars/all.yml", "group_vars/web.yml", "host_vars/db1/main.yml"),
        *("host_vars/web07.example.com.yml", "playbooks/site.yml"),
    }
    (folder / "prod.ini").unlink()  # the only inventory: all variables are its own
    assert "inventories/all/group_vars/shop.yml" in seen(build(place, "inventories/all/dev.ini"), place)


def test_a_range_of_hosts_is_each_of_them_and_no_name_that_begins_like_it(place: Path) -> None:
    folder = place / "inventories/all"
    write(folder / "dev.ini", "web[1:3]\nrack-[a:c].example.com\n")
    write(folder / "prod.ini", "web[2:3]-prod\n")
    for name in ("web2.yml", "web-prod.yml", "web2-prod.yml", "rack-b.example.com.yml", "rack-1.example.com.yml"):
        write(folder / "host_vars" / name)
    found = seen(build(place, "inventories/all/dev.ini"), place)
    names = {os.path.basename(path) for path in found if "host_vars" in path}
    assert names == {"web2.yml", "web-prod.yml", "rack-b.example.com.yml", "rack-1.example.com.yml"}


@pytest.mark.parametrize("alone", [True, False])
def test_variables_of_three_thousand_hosts_are_seen(alone: bool, place: Path) -> None:
    folder = place / "inventories/all"
    write(folder / "dev.ini", "".join(f"web{number}.example.com\n" for number in range(3000)))
    for number in range(3000):
        write(folder / f"host_vars/web{number}.example.com.yml")
    if not alone:
        write(folder / "prod.ini", "[shop]\nshop1\n")
        write(folder / "host_vars/shop1.yml")
        write(folder / "group_vars/shop.yml")
    found = seen(build(place, "inventories/all/dev.ini"), place)
    assert len([path for path in found if "host_vars" in path]) == 3000
    assert not any("group_vars" in path for path in found)


@settings_of_hypothesis(max_examples=5, deadline=None, derandomize=True, database=None)
@given(layouts())
def test_a_sandbox_shows_what_the_rule_says_over_random_trees(layout: Layout) -> None:
    """As tests/unit/test_shown_paths.py asks of the arguments; here of bubblewrap itself."""
    require_program("bwrap")
    with built(layout) as made:
        assert seen(sandbox.build("dev", made.confinement, None, made.settings), made.top) == made.ruled(
            InventoryNames(made.top)
        )


def test_a_folder_that_is_replaced_makes_another_sandbox(place: Path) -> None:
    before = build(place, "inventories/dev")
    assert build(place, "inventories/dev") == before
    shutil.move(place / "inventories/dev", place / "old")
    write(place / "inventories/dev/hosts")
    assert build(place, "inventories/dev") != before


def test_paths_for_everybody_are_seen_by_everybody(place: Path) -> None:
    write(place / "shared/script")
    assert "shared/script" in seen(build(place, sandbox_paths="shared"), place)


def test_what_is_configured_is_read_only_and_the_kernels_switches_too(place: Path) -> None:
    one = build(place, "inventories/dev")
    folders = (place / "playbooks", place / "inventories/dev", *map(Path, ("/usr", "/", "/etc", "/dev", "/home")))
    for path in (folder / "x" for folder in folders):
        assert "Read-only" in inside(one, "touch", str(path)).stderr
    switches = inside(
        one, "sh", "-c", "find /proc/[a-z]* -writable -type f ! -path '/proc/self/*' ! -path '/proc/net/*'"
    )
    assert [path for path in switches.stdout.split() if not path.startswith("/proc/thread-self/")] == []


def test_ansible_has_its_configuration_from_the_playbooks_alone(place: Path) -> None:
    one = build(place)
    assert configuration_of(str(place / "playbooks"), sandbox=one).config_file is None
    own = write(place / "playbooks/ansible.cfg", "[defaults]\n")
    assert configuration_of(str(place / "playbooks"), sandbox=one).config_file == str(own)


def test_folders_with_the_same_configuration_share_a_fork_server(place: Path) -> None:
    for name in "ab":
        write(place / "playbooks" / name / "site.yml")
    one, other = (configuration_of(str(place / "playbooks" / name), sandbox=build(place)) for name in "ab")
    assert one == other


def test_one_that_cannot_be_made_says_why(place: Path) -> None:
    (place / ".flansible").write_text("no folder")
    with pytest.raises(sandbox.RunnerError, match="the sandbox of dev cannot be made"):
        build(place)


def test_it_ends_whole(place: Path) -> None:
    one = build(place)
    told, telling = os.pipe()
    process = subprocess.Popen(
        [*one.arguments, "--info-fd", str(telling), "--", "sh", "-c", "setsid sleep 61.5 & exec sleep 61.5"],
        pass_fds=[telling],
    )
    os.close(telling)
    with os.fdopen(told) as info:
        init = json.load(info)["child-pid"]
    eventually(lambda: subprocess.run(["pgrep", "-f", "sleep 61.5"], capture_output=True).stdout.count(b"\n") >= 2)
    os.kill(init, 9)
    process.wait(10)
    eventually(lambda: subprocess.run(["pgrep", "-f", "^sleep 61.5"], capture_output=True).stdout == b"")


def test_two_runs_can_end_one_sandbox_in_one_moment() -> None:
    """Each would close its descriptor, and the second one what another thread has opened meanwhile."""
    for _ in range(20):
        process = subprocess.Popen(["sleep", "60"])
        server = StartedProcess.__new__(StartedProcess)
        server._init_lock, server._init = threading.Lock(), os.pidfd_open(process.pid)
        with ThreadPoolExecutor(8) as pool:
            for ending in [pool.submit(server.kill_sandbox) for _ in range(8)]:
                ending.result(10)
        process.wait(10)
