"""`flansible doctor` on real files and programs; with Redis or a worker: tests/integration/test_doctor.py."""

from __future__ import annotations

import json
import locale
import os
import pwd
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from werkzeug.security import generate_password_hash

from flansible.authorization import isolation
from flansible.authorization.isolation import Isolation
from flansible.cli import cli
from flansible.config import Settings
from flansible.doctor import configured, machine, open_services, servers
from flansible.doctor import run as doctor_run
from flansible.doctor.check import Check, Mark
from flansible.errors import ConfigurationError
from flansible.system import account
from tests.helpers import certificates
from tests.helpers.doctoring import FLANSIBLE, HASHED, MARKER, marks, run, user, write_config, write_users
from tests.helpers.passwords import CHEAP_HASHES

pytestmark = pytest.mark.usefixtures("cheap_hashes")

MakeSettings = Callable[..., Settings]
Doctor = Callable[..., tuple[int, str]]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Doctor]:
    """Runs the command in this process: takes a folder, arguments and environment; returns exit code and output."""
    kept = locale.setlocale(locale.LC_ALL)

    def run_here(folder: Path, *arguments: str, **environ: str) -> tuple[int, str]:
        monkeypatch.chdir(folder)
        ended = CliRunner().invoke(cli, ["doctor", *arguments], env=environ, catch_exceptions=False)
        assert MARKER not in ended.output + caplog.text, ended.output
        return ended.exit_code, ended.output

    yield run_here
    locale.setlocale(locale.LC_ALL, kept)


# Whole runs, in processes of their own where the process matters.


def test_a_fresh_machine_has_nothing_to_mend(tmp_path: Path) -> None:
    code, output = run(tmp_path)
    assert code == 0, output
    assert "`flansible up` starts it" in output
    assert "flansible passwd admin" in output


def test_every_fault_of_the_configuration_is_a_line(tmp_path: Path, doctor: Doctor) -> None:
    write_config(tmp_path, Flask_tcp_port="high", playbok_root="/x", worker_concurrency=0)
    code, output = doctor(tmp_path, FLANSIBLE_FORKS="7")
    assert code == 1
    faults = [line for line in output.splitlines() if line.startswith("FAIL configuration: ")]
    assert len(faults) == 4
    assert "were not checked" in output


@pytest.mark.parametrize(
    "text",
    [
        f"CELERY_BROKER_URL = redis://:{MARKER}@localhost/0\n",
        f"[Default]\nCELERY_BROKER_URL redis://:{MARKER}@localhost/0\n",
        f"[Default]\nCELERY_BROKER_URL = http://user:{MARKER}@localhost/0\n",
        f"[Default]\nCELERY_BROKER_URL = amqp://user:{MARKER}@127.0.0.1:1//\n",
        f"[Default]\nCELERY_BROKER_URL = amqp://user:{MARKER}@127.0.0.1:x//\n",
        f"[Default]\nCELERY_RESULT_BACKEND = redis://:a/{MARKER}@localhost:6379/0\n",
        f"[Default]\nCELERY_RESULT_BACKEND = redis://:{MARKER}@127.0.0.1:1/0\n",
        f"[Default]\nCELERY_RESULT_BACKEND = redis+socket://:{MARKER}@/nobody/listens\n",
    ],
)
def test_a_password_in_a_broken_url_is_never_printed(open_folder: Path, text: str, doctor: Doctor) -> None:
    config = open_folder / "config.ini"
    config.write_text(text)
    config.chmod(0o644)
    code, output = doctor(open_folder)
    assert code == 1
    assert f"chmod o-r {config}" in output


def test_a_whole_run_prints_no_password_of_a_broken_url(tmp_path: Path) -> None:
    write_config(
        tmp_path,
        CELERY_BROKER_URL=f"amqp://user:{MARKER}@127.0.0.1:1//",
        CELERY_RESULT_BACKEND=f"redis://:{MARKER}@127.0.0.1:1/0",
    )
    code, output = run(tmp_path)
    assert code == 1
    assert "FAIL broker" in output and "FAIL redis" in output


@pytest.mark.by_day(1)
@pytest.mark.parametrize("value", ["C", "xx_YY.UTF-8"])
def test_a_locale_that_ansible_refuses_is_a_failure(tmp_path: Path, value: str) -> None:
    code, output = run(tmp_path, LC_ALL=value)
    assert code == 1
    assert "FAIL locale" in output
    assert "C.UTF-8" in output


def test_what_a_user_may_do_is_said_by_each_entry(tmp_path: Path) -> None:
    config = write_config(tmp_path, rbac_file="rbac.json")
    dev = user("dev", HASHED, "/srv/dev") | {"groups": ["ops"]}
    text = json.dumps({"rbac": [user(), dev], "groups": [{"name": "ops", "inventories": ["/srv/prod"]}]})
    (tmp_path / "rbac.json").write_text(text)
    (tmp_path / "rbac.json").chmod(0o600)
    returncode, said = run(tmp_path, "--config", str(config), "--rights", "dev")
    lines = said.splitlines()
    assert returncode == 0
    assert lines[0].startswith("You are dev, a member of ops.")
    assert any("/srv/dev" in line and "your own" in line for line in lines)
    assert any("/srv/prod" in line and "ops" in line and "your own" not in line for line in lines)
    assert run(tmp_path, "--config", str(config), "--rights", "admin")[1].startswith("You are admin.")
    returncode, said = run(tmp_path, "--config", str(config), "--rights", "dv")
    assert returncode == 1
    assert "has no user dv; did you mean dev?" in said


def test_without_programs_on_the_path_ssh_fails_and_git_warns(tmp_path: Path, doctor: Doctor) -> None:
    code, output = doctor(tmp_path, PATH=str(tmp_path))
    assert code == 1
    assert "FAIL ssh: is not on the PATH" in output
    assert "warn git: is not on the PATH" in output
    assert "apt-get install openssh-client" in output


def test_odd_states_of_the_machine_end_in_no_traceback(tmp_path: Path, doctor: Doctor) -> None:
    (tmp_path / "config.ini").mkdir()
    assert doctor(tmp_path, FLANSIBLE_CONFIG=str(tmp_path / "config.ini"))[0] == 1
    assert doctor(tmp_path, "--config", "no-such-file")[0] == 1
    assert doctor(tmp_path, FLANSIBLE_DATA_DIR="~no-such-user/x")[0] == 1
    (tmp_path / "rbac.json").mkdir()
    assert doctor(tmp_path)[0] == 1


def test_a_path_that_cannot_be_printed_is_no_obstacle(tmp_path: Path) -> None:
    odd = tmp_path / "größe\n\udcff"
    odd.mkdir()
    code, output = run(odd, PYTHONIOENCODING="ascii")
    assert code == 0
    assert "gr\\xf6\\xdfe" in output


def test_a_working_directory_that_is_gone_is_no_obstacle(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'rmdir "$PWD" && exec "$@"'
    ended = subprocess.run(
        ["sh", "-c", script, "sh", *FLANSIBLE, "doctor"], cwd=gone, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert "FAIL configuration" in ended.stdout
    assert "Traceback" not in ended.stderr


# Area by area: the machine.


def test_the_tested_range_of_ansible_is_the_one_of_setup_py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = machine.ansible()
    assert found.mark is Mark.OK and ">=2.19" in found.found
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (absent,) = machine.ansible()
    assert absent.mark is Mark.FAIL and "pip install" in absent.advice
    write_metadata(tmp_path, "ansible_core", "2.22.1")
    (unknown,) = machine.ansible()
    assert unknown.mark is Mark.WARN
    write_metadata(tmp_path, "flansible", "1", "Requires-Dist: click\nRequires-Dist: ansible-core<2.22,>=2.19\n")
    (newer,) = machine.ansible()
    assert newer.mark is Mark.FAIL and "2.22.1" in newer.found and "ansible-core<2.22,>=2.19" in newer.advice


def write_metadata(folder: Path, name: str, version: str, more: str = "") -> None:
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir()
    text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n{more}"
    (place / "METADATA").write_text(text)
    # importlib.metadata notices new entries of a folder by its time stamp.
    os.utime(folder, ns=(place.stat().st_mtime_ns + 1, place.stat().st_mtime_ns + 1))


def test_an_ssh_that_hangs_or_fails_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert marks(machine.ssh(), "failed: broken") == [Mark.FAIL]
    monkeypatch.setattr(machine, "PROGRAM_SECONDS", 0.3)
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    assert marks(machine.ssh(), "did not end") == [Mark.FAIL]


def test_root_is_warned_and_told_to_make_a_user_with_a_home() -> None:
    (check,) = machine.not_root()
    assert check.mark is (Mark.WARN if os.geteuid() == 0 else Mark.OK)
    assert os.geteuid() != 0 or "adduser --system --group --home " in check.advice


def test_few_open_files_are_a_warning_that_says_what_they_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, mark in ((256, Mark.WARN), (65536, Mark.OK), (resource.RLIM_INFINITY, Mark.OK)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limit=limit: (limit, limit))
        [check] = machine.open_files()
        assert check.mark is mark and (mark is Mark.OK or "128 connections" in check.found)


def test_an_area_that_stumbles_is_a_line_that_quotes_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumbles() -> list[Check]:
        raise ValueError(f"cannot cast {MARKER}")

    (check,) = doctor_run.run_area("redis", stumbles)
    assert check.mark is Mark.FAIL and "ValueError" in str(check) and MARKER not in str(check)


def test_a_check_is_one_line_without_the_password_of_a_url() -> None:
    line = str(Check(Mark.FAIL, "redis", f"redis://u:{MARKER}@h:1/0\nand\x1b[31m", "fix it"))
    assert MARKER not in line and line.isprintable()


# Area by area: what was configured.


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"HOME": "/dev/null/home"}, "cannot write in /dev/null/home/.ansible"),
        ({"HOME": "/proc/self"}, "cannot write in /proc/self/.ansible"),
        ({"ANSIBLE_HOME": "/dev/null"}, "cannot write in /dev/null,"),
        ({"HOME": "/dev/null/home", "ANSIBLE_HOME": "/tmp"}, ""),
        ({"HOME": "/dev/null/home", "ANSIBLE_LOCAL_TEMP": "/tmp/not/yet"}, ""),
    ],
)
def test_a_home_that_ansible_cannot_write_in_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], found: str
) -> None:
    set_home(monkeypatch, tmp_path)
    assert marks(machine.home(), "home: ") == [Mark.OK]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert marks(machine.home(), found, f"HOME={tmp_path}" if found else "") == [Mark.FAIL if found else Mark.OK]
    if found:
        with pytest.raises(ConfigurationError, match=f"HOME: .*{found}"):
            account.require_home()


def test_an_account_without_a_home_is_a_warning_with_the_command_that_makes_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_home(monkeypatch, Path("/dev/null/gone"))
    found = "cannot write in /dev/null/gone/.ansible, where modules", "usermod --home /var/lib/service service"
    assert marks(machine.home(), *found) == [Mark.WARN]
    account.warn()
    assert all(word in caplog.text for word in found)
    monkeypatch.setenv("ANSIBLE_REMOTE_TEMP", "/tmp")
    assert marks(machine.home()) == [Mark.OK]


def set_home(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Gives the account of this process this home in /etc/passwd."""
    entry = pwd.struct_passwd(("service", "x", os.geteuid(), os.getegid(), "", str(home), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)


def test_a_home_that_cannot_be_looked_at_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path.is_dir raises what it does not expect, and so does statvfs."""

    def fail(path: object) -> None:
        raise OSError(5, "Input/output error")

    (tmp_path / "link").symlink_to("x" * 300)
    monkeypatch.setenv("ANSIBLE_HOME", str(tmp_path / "link"))
    assert f"cannot write in {tmp_path}/link" in account.home_fault()
    monkeypatch.setenv("ANSIBLE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "statvfs", fail)
    assert account.home_fault().endswith("Input/output error")


def test_a_full_disk_below_home_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.statvfs_result((4096, 4096, 1000, 0, 0, 100, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    assert marks(machine.home(), "the disk is full") == [Mark.FAIL]


def test_plain_http_that_other_machines_can_reach_is_a_warning(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    for address, expected in (("127.0.0.1", []), ("::1", []), ("0.0.0.0", [Mark.WARN]), ("192.0.2.1", [Mark.WARN])):
        settings = make_settings(Flask_tcp_ip=address)
        assert marks(configured.plain_http(settings), "unencrypted", "tls_certificate") == expected
        caplog.clear()
        open_services.warn_of_plain_http(settings)
        assert ["unencrypted" in record.message for record in caplog.records] == [True] * len(expected)
    secure = make_settings(Flask_tcp_ip="0.0.0.0", tls_certificate="/x", tls_key="/y")
    assert configured.plain_http(secure) == []


def test_a_config_others_can_write_is_a_failure(open_folder: Path) -> None:
    path = write_config(open_folder)
    path.chmod(0o666)
    loaded: list[Settings] = []
    assert marks(configured.configuration(str(path), loaded), "write", f"chmod o-w {path}") == [Mark.FAIL]
    assert loaded
    path.chmod(0o644)
    assert marks(configured.configuration(str(path), []), "chmod") == []


def test_a_folder_in_which_others_can_replace_the_file_is_a_failure(
    open_folder: Path, make_settings: MakeSettings
) -> None:
    settings = make_settings(rbac_file=open_folder / "rbac.json")
    write_users(settings.rbac_file, user())
    open_folder.chmod(0o777)
    assert marks(configured.users(settings), "replace", f"chmod o-w {open_folder}") == [Mark.FAIL]
    open_folder.chmod(0o1777)
    assert marks(configured.users(settings), "replace") == []


def test_a_missing_rbac_file_is_a_warning(settings: Settings) -> None:
    assert marks(configured.users(settings), "flansible passwd admin") == [Mark.WARN]


def test_every_fault_of_the_rbac_file_is_a_line(settings: Settings) -> None:
    write_users(settings.rbac_file, {"user": "a:b", "password": "x"}, {"user": "c", "password": 1, "more": 2})
    assert marks(configured.users(settings), 'user "') == [Mark.FAIL] * 3


def test_what_breaks_the_schema_is_a_line_each_and_told_once(settings: Settings) -> None:
    entry = {**user("dev", MARKER), "role": "king", "limits": {"forks": 0}, "pasword": MARKER, "hosts": ["a,b"]}
    write_users(settings.rbac_file, entry, {"user": "ops"}, {"user": ["x"], "password": [MARKER]})
    checks = configured.users(settings)
    dev = 'user "dev": '
    for words in (
        *(
            f"{dev}role: ",
            f"{dev}limits.forks: ",
            f'{dev}unknown key "pasword", did you mean "password"?',
            f"{dev}hosts: ",
        ),
        *('user "ops": password: ', "rbac[2]: user: ", "rbac[2]: password: "),
    ):
        assert marks(checks, words) == [Mark.FAIL], words
    assert MARKER not in " ".join(map(str, checks))


@pytest.mark.parametrize(
    ("found", "mark", "words"),
    [
        (Isolation("auto"), Mark.OK, "bubblewrap"),
        (Isolation("bwrap"), Mark.OK, "bubblewrap"),
        (Isolation("none"), Mark.WARN, "not sandboxed"),
        (Isolation("auto", "bwrap is not installed"), Mark.WARN, "apt-get install bubblewrap"),
        (Isolation("bwrap", "bwrap is not installed"), Mark.FAIL, "does not start"),
    ],
)
def test_whether_runs_are_confined(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, found: Isolation, mark: Mark, words: str
) -> None:
    monkeypatch.setattr(isolation, "of", lambda mode: found)
    assert marks(configured.isolated(settings), "isolation: ", words) == [mark]


def test_hashed_passwords_are_well(settings: Settings) -> None:
    write_users(settings.rbac_file, user())
    assert [check.mark for check in configured.users(settings)] == [Mark.OK]


def test_plain_passwords_are_a_warning_with_the_command_to_type(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(config_file=tmp_path / "a b.ini")
    write_users(settings.rbac_file, user(), user("dev user", MARKER))
    lines = configured.users(settings)
    command = f"flansible passwd --config '{tmp_path}/a b.ini' 'dev user'"
    assert marks(lines, command) == [Mark.WARN]
    assert MARKER not in "".join(map(str, lines))


@pytest.mark.parametrize(("password", "found"), [(HASHED, [Mark.FAIL]), ("plain", [Mark.FAIL]), ("admin", [])])
def test_an_rbac_file_that_others_can_read(
    make_settings: MakeSettings, open_folder: Path, tmp_path: Path, password: str, found: list[Mark]
) -> None:
    """One with the passwords of the samples has nothing to hide; in a private folder none can be read."""
    for folder, expected in ((open_folder, found), (tmp_path, [])):
        settings = make_settings(rbac_file=folder / "rbac.json")
        write_users(settings.rbac_file, user(password=password)).chmod(0o644)
        assert marks(configured.users(settings), "can read", "chmod o-r") == expected


def test_an_rbac_file_that_others_can_write_is_a_failure(make_settings: MakeSettings, open_folder: Path) -> None:
    settings = make_settings(rbac_file=open_folder / "rbac.json")
    write_users(settings.rbac_file, user()).chmod(0o602)
    assert marks(configured.users(settings), "can write", "chmod o-w") == [Mark.FAIL]


def test_a_key_that_others_can_read_is_a_failure_and_the_group_a_warning(
    make_settings: MakeSettings, open_folder: Path
) -> None:
    key = open_folder / "key"
    key.write_text("x")
    settings = make_settings(secret_key_file=key)
    for mode, expected in ((0o604, Mark.FAIL), (0o640, Mark.WARN), (0o600, Mark.OK)):
        key.chmod(mode)
        assert [check.mark for check in configured.secrets(settings)] == [expected]


@pytest.mark.parametrize("password", ["admin", generate_password_hash("admin", CHEAP_HASHES)])
def test_the_password_everybody_knows(make_settings: MakeSettings, password: str) -> None:
    settings = make_settings()
    write_users(settings.rbac_file, user(password=password))
    said = "admin's password is admin"
    assert marks(configured.users(settings), said) == [Mark.WARN]
    assert marks(configured.users(make_settings(Flask_tcp_ip="0.0.0.0")), said, "0.0.0.0") == [Mark.FAIL]
    assert marks(configured.users(make_settings(flower_tcp_ip="::")), said) == [Mark.FAIL]


def test_a_file_without_an_admin_is_a_warning(settings: Settings) -> None:
    write_users(settings.rbac_file, user("dev"))
    assert marks(configured.users(settings), "no user admin") == [Mark.WARN]


def test_inventories_that_are_not_there_are_a_warning(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "dev").write_text("localhost\n")
    write_users(settings.rbac_file, user(), user("dev", HASHED, "dev", "prod"))
    assert marks(configured.users(settings), "dev has inventories that do not exist", str(tmp_path / "prod")) == [
        Mark.WARN
    ]
    assert marks(configured.users(settings), str(tmp_path / "dev") + ",") == []


def test_a_certificate_is_looked_at_with_its_end(make_settings: MakeSettings, tmp_path: Path) -> None:
    assert configured.certificate(make_settings()) == []
    signer = certificates.authority(tmp_path)
    for days, expected in ((30, Mark.OK), (2, Mark.WARN)):
        pair = certificates.signed(tmp_path, signer, days=days)
        settings = make_settings(tls_certificate=pair.certificate, tls_key=pair.key)
        assert marks(configured.certificate(settings), "is valid until") == [expected]
    wrong = make_settings(tls_certificate=pair.certificate, tls_key=signer.key)
    assert marks(configured.certificate(wrong), "tls_key") == [Mark.FAIL]


def test_the_playbook_root(settings: Settings) -> None:
    root = settings.playbook_root
    assert marks(configured.playbook_root(settings), f"mkdir -p {root}") == [Mark.WARN]
    root.mkdir(mode=0o755)
    assert marks(configured.playbook_root(settings)) == [Mark.OK]
    root.chmod(0o777)
    assert marks(configured.playbook_root(settings), "ansible.cfg") == [Mark.WARN]


def test_the_data_dir(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings()
    place = settings.data_dir
    assert marks(configured.data_dir(settings), "does not exist yet") == [Mark.OK]
    place.mkdir(mode=0o700)
    assert marks(configured.data_dir(settings), f"data_dir: {place}") == [Mark.OK]
    place.chmod(0o750)
    assert marks(configured.data_dir(settings), f"chmod 700 {place}") == [Mark.FAIL]
    file = tmp_path / "file"
    file.touch()
    assert marks(configured.data_dir(make_settings(data_dir=file)), "not a folder") == [Mark.FAIL]


def test_a_data_dir_of_another_user_is_a_failure(settings: Settings) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    settings.data_dir.mkdir(mode=0o700)
    os.chown(settings.data_dir, 65534, 65534)
    assert marks(configured.data_dir(settings), "belongs to user id 65534") == [Mark.FAIL]


def test_little_free_space_is_a_warning_and_none_a_failure(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert marks(configured.data_dir(settings), "disk:") in ([Mark.OK], [Mark.WARN])
    monkeypatch.setattr(configured, "MIN_FREE_BYTES", 10**18)
    assert marks(configured.data_dir(settings), "GB free") == [Mark.WARN]
    monkeypatch.setattr(configured, "FULL_BYTES", 10**18)
    assert marks(configured.data_dir(settings), "GB free") == [Mark.FAIL]


def test_an_rbac_file_of_another_user_names_the_command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    write_users(settings.rbac_file, user())

    def refuse(path: Path, **_: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)  # root may read everything
    assert marks(configured.users(settings), "cannot be read", f"chown {account.name()} {settings.rbac_file}") == [
        Mark.FAIL
    ]


def test_an_external_redis_that_is_away_is_a_failure(settings: Settings) -> None:
    assert marks(servers.redis(settings), "CELERY_RESULT_BACKEND", "does not answer") == [Mark.FAIL]
