"""`flansible init`: what it makes, what it keeps, and who gets to see the password."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from flask.testing import FlaskClient

from flansible import config
from flansible.doctor import configured
from flansible.doctor.check import Mark
from flansible.errors import ConfigurationError
from flansible.identity import users
from flansible.starter import new_folder
from flansible.web import create_app
from tests.helpers.waiting import require_program

FLANSIBLE = [sys.executable, "-P", "-m", "flansible"]
FILES = {"config.ini", "rbac.json", ".gitignore", "inventories/dev/hosts", "playbooks/site.yml"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> new_folder.NewFolder:
    return new_folder.make(tmp_path_factory.mktemp("made"))


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_makes_five_files_of_which_only_the_users_are_closed_to_others(made: new_folder.NewFolder) -> None:
    assert set(made.made) == below(made.folder) == FILES
    assert {name for name in FILES if mode(made.folder / name) & 0o077} == FILES - {"rbac.json"}
    assert mode(made.folder / "rbac.json") == 0o600
    assert mode(made.folder / "config.ini") == 0o644


def test_only_admin_is_a_user_whose_password_is_random_and_stored_as_a_hash(
    made: new_folder.NewFolder, tmp_path: Path
) -> None:
    found = users.RbacFile(made.folder / "rbac.json")
    assert set(found.users()) == {"admin"}
    assert found.authenticate("admin", made.password) is not None
    assert made.password not in (made.folder / "rbac.json").read_text() and len(made.password) >= 20
    assert new_folder.make(tmp_path / "another").password != made.password


def test_the_doctor_finds_nothing_to_consider_in_its_files(made: new_folder.NewFolder) -> None:
    loaded: list[config.Settings] = []
    checks = configured.configuration(str(made.folder / "config.ini"), loaded)
    for check in (configured.users, configured.secrets, configured.playbook_root, configured.plain_http):
        checks += check(loaded[0])
    assert [str(check) for check in checks if check.mark is not Mark.OK] == []
    assert os.path.exists(loaded[0].default_inventory or "")


def test_its_playbook_and_inventory_are_what_ansible_reads(made: new_folder.NewFolder) -> None:
    command = [require_program("ansible-playbook"), "-i", "../inventories/dev", "site.yml", "--list-hosts"]
    ended = subprocess.run(command, cwd=made.folder / "playbooks", capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0 and "hosts (1):\n      localhost" in ended.stdout, ended
    assert yaml.safe_load((made.folder / "playbooks/site.yml").read_text())


def test_git_would_commit_no_secret_and_no_record(made: new_folder.NewFolder) -> None:
    git = require_program("git")
    for name in (".flansible/secret.key", ".ansible/tmp/x", ".ssh/id_ed25519"):
        (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (made.folder / name).touch()
    subprocess.run([git, "init", "-q", "."], cwd=made.folder, check=True)
    told = subprocess.run([git, "status", "--porcelain", "-uall"], cwd=made.folder, capture_output=True, text=True)
    assert {line.removeprefix("?? ") for line in told.stdout.splitlines()} == FILES - {"rbac.json"}


def test_what_exists_is_kept_as_it_is_and_named(tmp_path: Path) -> None:
    for name, text in (
        ("rbac.json", "mine"),
        (".gitignore", "/rbac.json\n*.pyc\n.ssh\n/.ansible/\n"),
        ("playbooks/my.yml", "- {}"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "inventories").symlink_to("/nowhere")
    new = new_folder.make(tmp_path)
    assert new.made == ("config.ini",)
    assert new.kept == (".gitignore", "inventories", "playbooks", "rbac.json")
    assert new.not_ignored == ("/.flansible/",) and new.password == ""
    assert below(tmp_path) == {"config.ini", "rbac.json", ".gitignore", "playbooks/my.yml", "inventories"}
    assert (tmp_path / "rbac.json").read_text() == "mine"
    assert config.load(str(tmp_path / "config.ini"), {}).default_inventory is None, "there is no such inventory"
    text = "\n".join(new_folder.describe(new, True))
    assert "Kept, because it exists: .gitignore, inventories, playbooks, rbac.json" in text
    assert "Add to .gitignore what git must not have: /.flansible/" in text and "password" not in text


def test_an_inventory_of_ones_own_by_that_name_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "inventories/dev").mkdir(parents=True)
    new_folder.make(tmp_path)
    assert list((tmp_path / "inventories/dev").iterdir()) == []
    assert config.load(str(tmp_path / "config.ini"), {}).default_inventory == str(tmp_path / "inventories/dev")


def test_a_folder_that_is_set_up_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.ini").symlink_to("/nowhere")
    with pytest.raises(ConfigurationError, match=f"{tmp_path}/config.ini: exists, so nothing was made"):
        new_folder.make(tmp_path)
    assert below(tmp_path) == {"config.ini"}


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="/file: cannot be made: File exists"):
        new_folder.make(tmp_path / "file/below")

    def open_but_the_last(path: Path, *arguments: int) -> int:
        if path.name == "config.ini":
            raise OSError(28, "No space left on device", str(path))
        return opened(path, *arguments)

    opened = os.open
    monkeypatch.setattr(os, "open", open_but_the_last)
    with pytest.raises(ConfigurationError, match="config.ini: cannot be made: No space left"):
        new_folder.make(tmp_path / "new/deep")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_may_not_be_written_is_named(open_folder: Path) -> None:
    if os.geteuid() == 0:
        ended = subprocess.run(
            [*FLANSIBLE, "init", "/proc/new"], cwd=open_folder, capture_output=True, text=True, timeout=60
        )
    else:
        open_folder.chmod(0o555)
        ended = subprocess.run([*FLANSIBLE, "init"], cwd=open_folder, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and "cannot be made: " in ended.stderr and "Traceback" not in ended.stderr
    assert below(open_folder) == set()


def test_files_that_root_makes_belong_to_the_owner_of_their_folder(open_folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(open_folder, 65534, 65534)
    new = new_folder.make(open_folder)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in open_folder.rglob("*")} == {(65534, 65534)}
    assert len(new.made) == 5 and (os.geteuid(), os.getegid()) == (0, 0)


def test_the_password_is_shown_on_a_terminal_and_nowhere_else(tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    try:
        subprocess.run([*FLANSIBLE, "init", "one"], cwd=tmp_path, stdout=terminal, check=True, timeout=60)
        shown = os.read(master, 65536).decode()
    finally:
        os.close(master)
        os.close(terminal)
    password = shown.partition("with the password ")[2].split()[0]
    found = users.RbacFile(tmp_path / "one/rbac.json")
    assert found.authenticate("admin", password) is not None
    assert f"Next: cd {tmp_path}/one && flansible up" in shown
    assert f"`cd {tmp_path}/one && flansible passwd admin` sets another" in shown
    logged = subprocess.run([*FLANSIBLE, "init", "two"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert logged.returncode == 0 and logged.stderr == ""
    assert (
        f"`cd {tmp_path}/two && flansible passwd admin`" in logged.stdout and "with the password" not in logged.stdout
    )


def test_the_examples_of_the_api_documents_name_what_it_makes(made: new_folder.NewFolder) -> None:
    """Sent as they stand, they are accepted: without a store 503 is as far as a request comes."""
    nowhere = f"redis+socket://{made.folder}/nobody-listens"
    environ = {"FLANSIBLE_CELERY_BROKER_URL": nowhere, "FLANSIBLE_CELERY_RESULT_BACKEND": nowhere}
    app = create_app(config.load(str(made.folder / "config.ini"), environ))
    client: FlaskClient = app.test_client()
    sent = {}
    for path, methods in client.get("/api/openapi.json").get_json()["paths"].items():
        body = methods.get("post", {}).get("requestBody")
        if body and path != "/api/session":
            example = body["content"]["application/json"]["example"]
            reply = client.post(path, json=example, auth=("admin", made.password))
            sent[path] = (reply.status_code, reply.get_json().get("code"))
    away = (503, "store_unavailable")
    expected = dict.fromkeys(("/api/ansiblecommand", "/api/ansibleplaybook", "/api/git", "/api/preview"), away)
    expected |= {"/api/apply": (503, "no_database"), "/api/account/tokens": (201, None)}
    nothing = (404, "definition_not_found")  # their names are to be filled in
    assert sent == expected | {"/api/templates/{name}/launch": nothing, "/api/schedules/{name}/pause": nothing}
