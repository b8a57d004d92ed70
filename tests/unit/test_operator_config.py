"""What of the operator's Ansible configuration confined runs have: settings by their names and values."""

from __future__ import annotations

from pathlib import Path

import pytest

from flansible.worker import operator_config

SHOWN = ("/usr", "/srv/shown")


def is_shown(path: str) -> bool:
    return path.startswith(SHOWN)


def read(tmp_path: Path, text: str) -> operator_config.OperatorFile:
    path = tmp_path / "ansible.cfg"
    path.write_text(text)
    found = operator_config.files({"ANSIBLE_CONFIG": str(path)}, is_shown, lambda path: False)
    return next(one for one in found if one.path == str(path))


KEPT = [
    "forks = 33",
    "remote_user = deploy",
    "ask_pass = True",
    "ask_vault_pass = no",
    "vault_password_file = /srv/shown/pass",
    "roles_path = /usr/share/ansible/roles:~/.ansible/roles",
    "roles_path = /nowhere/at/all",
    "remote_tmp = /var/tmp/ansible",
    "local_tmp = ~/.ansible/tmp",
    "fact_caching_connection = ~/facts",
    "log_path = ~/ansible.log",
    "interpreter_python = /etc/passwd",
    "executable = /usr/bin/bash",
    "vault_identity_list = dev@prompt",
    "stdout_callback = yaml",
    "ansible_managed = Ansible managed: %Y (of {file})",
    "ssh_args = -o ControlMaster=auto -o ControlPersist=60s",
    "no_target_syslog = True",
]
UNSEEN = [
    "vault_password_file = /etc/ansible/vault-pass",
    "vault_password_file = ~/.vault",
    "vault_password_file = here",
    "vault_identity_list = dev@/etc/passwd, prod@~/.vault",
    "private_key_file = ~/.ssh/id_rsa",
    "become_password_file = /root/pass",
    "roles_path = /etc:/usr/share/ansible/roles",
    "filter_plugins = ./here",
    "library = here",
    "log_path = /var/log/ansible.log",
    "fact_caching_connection = /var/cache/facts",
    "retry_files_save_path = /var/retry",
    "ssh_args = -F /etc/hostname",
    "ssh_args = -o UserKnownHostsFile=/etc/hostname",
]
SECRET = [
    "become_pass = s3cret",
    "token = s3cret",
    "hashi_vault_secret_id = s3cret",
    "url = https://user:s3cret@hub",
    "fact_caching_connection = localhost:6379:0:s3cret",
    "ssh_args = -o ProxyCommand='sshpass -p s3cret ssh'",
    "api_key = s3cret",
    "authtoken = s3cret",  # of the callback splunk
    "shared_key = s3cret",  # of loganalytics
    "conf_key = s3cret",  # of logdna
    "webhook_url = https://hooks.slack.com/services/s3cret",
    "hashi_vault_jwt = s3cret",
]


@pytest.mark.parametrize("line", KEPT)
def test_a_setting_that_names_no_unseen_file_and_holds_no_secret_is_in_force(line: str, tmp_path: Path) -> None:
    found = read(tmp_path, f"[defaults]\n{line}\n")
    assert line in found.text and found.notes == ()


@pytest.mark.parametrize("line", [*UNSEEN, *SECRET])
def test_what_names_an_unseen_file_or_holds_a_secret_is_left_out_and_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    found = read(tmp_path, f"[defaults]\nforks = 7\n{line}\n")
    name = line.partition(" ")[0]
    assert name not in found.text and "forks = 7" in found.text
    (note,) = found.notes
    assert note.startswith(f"{name} of {found.path} left out, since")
    assert ("secret" in note) == (line in SECRET) and "s3cret" not in note


def test_a_cache_without_its_connection_is_left_out_too(tmp_path: Path) -> None:
    found = read(tmp_path, "[defaults]\nfact_caching = jsonfile\nfact_caching_connection = /var/cache/facts\n")
    assert "fact_caching" not in found.text
    assert "fact_caching of" in "".join(found.notes)


def test_servers_of_galaxy_lose_their_tokens_and_defaults_of_all_sections_theirs(tmp_path: Path) -> None:
    text = "[DEFAULT]\npassword = s3cret\n[galaxy]\nserver_list = one\n"
    found = read(tmp_path, f"{text}[galaxy_server.one]\nurl = https://hub/\ntoken = s3cret\n")
    assert "s3cret" not in found.text and "url = https://hub/" in found.text
    assert "DEFAULT.password, galaxy_server.one.token of" in found.notes[0]


@pytest.mark.parametrize("text", ["forks = 3\n", "[defaults]\nforks = 1\nforks = 2\n", "[defaults\n"])
def test_a_file_that_ansible_could_not_read_is_not_in_force_and_not_quoted(text: str, tmp_path: Path) -> None:
    found = read(tmp_path, text)
    assert found.text == "" and "cannot be read" in found.notes[0] and "forks" not in found.notes[0]


@pytest.mark.parametrize("line", [*UNSEEN, *SECRET])
def test_variables_of_the_service_are_judged_like_settings(line: str) -> None:
    name, _, value = line.partition(" = ")
    kept, notes = operator_config.variables(
        {"ANSIBLE_FORKS": "7", f"ANSIBLE_{name.upper()}": value, "OTHER": "x"}, is_shown
    )
    if value in ("here", "./here"):  # counts from the run's directory
        return
    assert kept == {"ANSIBLE_FORKS": "7"}
    assert notes[0].startswith(f"ANSIBLE_{name.upper()} of the service's environment left out, since")
    assert "s3cret" not in notes[0]
