"""Settings: complete or refused, every fault at once, each with its file or variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from flansible import config
from flansible.errors import ConfigurationError, Fault

SECRET = "hunter2"


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    return tmp_path / "config.ini"


def load(ini: Path, text: str, **environ: str) -> config.Settings:
    ini.write_text(text)
    return config.load(str(ini), environ)


def faults_of(ini: Path, text: str, **environ: str) -> list[Fault]:
    with pytest.raises(ConfigurationError) as caught:
        load(ini, text, **environ)
    assert str(caught.value).count("\n") == len(caught.value.faults) - 1
    return caught.value.faults


def test_without_a_file_everything_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = config.load(None, {})
    assert settings.config_file is None
    assert settings.CELERY_BROKER_URL == settings.CELERY_RESULT_BACKEND == "embedded"
    assert (settings.Flask_tcp_ip, settings.Flask_tcp_port) == ("127.0.0.1", 3000)
    assert settings.playbook_root == tmp_path / "playbooks"
    assert settings.rbac_file == tmp_path / "rbac.json"
    assert settings.data_dir == tmp_path / ".flansible"
    assert settings.default_inventory is None


def test_config_ini_in_the_working_directory_is_read(ini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ini.write_text("[Default]\nFlask_tcp_port = 8080\n")
    monkeypatch.chdir(ini.parent)
    assert config.load(None, {}).Flask_tcp_port == 8080


def test_the_variable_names_the_file_unless_the_option_does(tmp_path: Path) -> None:
    for name, port in (("variable.ini", 1111), ("option.ini", 2222)):
        (tmp_path / name).write_text(f"[Default]\nFlask_tcp_port = {port}\n")
    environ = {"FLANSIBLE_CONFIG": str(tmp_path / "variable.ini")}
    assert config.load(None, environ).Flask_tcp_port == 1111
    assert config.load(str(tmp_path / "option.ini"), environ).Flask_tcp_port == 2222


def test_all_faults_are_told_at_once_each_with_its_file_or_variable(ini: Path) -> None:
    text = """
    [Default]
    Flask_tcp_port = 99999
    CELERY_TASK_TIMEOUT = soon
    CELERY_RESULT_BACKEND = mysql://there
    playbook_filter = (
    playbok_root = /srv
    log_level = loud
    [Celery]
    x = 1
    """
    faults = faults_of(ini, text.replace("\n    ", "\n"), FLANSIBLE_WEB_WORKERS="0", FLANSIBLE_FORKSERVERS="3")
    found = {(fault.source, fault.key) for fault in faults}
    assert found == {
        (str(ini), "Flask_tcp_port"),
        (str(ini), "CELERY_TASK_TIMEOUT"),
        (str(ini), "CELERY_RESULT_BACKEND"),
        (str(ini), "playbook_filter"),
        (str(ini), "playbok_root"),
        (str(ini), "log_level"),
        (str(ini), "[Celery]"),
        ("FLANSIBLE_WEB_WORKERS", "web_workers"),
        ("environment", "FLANSIBLE_FORKSERVERS"),
    }


def test_an_unknown_key_is_a_fault_with_a_hint(ini: Path) -> None:
    [fault] = faults_of(ini, "[Default]\nFlask_tcp_prot = 80\n")
    assert fault.key.lower() == "flask_tcp_prot"
    assert fault.message == "unknown key; did you mean Flask_tcp_port?"


def test_an_unknown_variable_is_a_fault_with_a_hint(ini: Path) -> None:
    [fault] = faults_of(ini, "[Default]\n", FLANSIBLE_PLAYBOOKROOT="/srv")
    assert fault.key == "FLANSIBLE_PLAYBOOKROOT"
    assert fault.message == "unknown key; did you mean FLANSIBLE_playbook_root?"


def test_variables_of_the_client_are_no_settings(ini: Path) -> None:
    client = {"FLANSIBLE_URL": "http://x", "FLANSIBLE_USER": "u", "FLANSIBLE_PASSWORD": "p"}
    load(ini, "[Default]\n", **client)


@pytest.mark.parametrize("name", ["FLANSIBLE_FLASK_TCP_PORT", "FLANSIBLE_Flask_tcp_port"])
def test_the_environment_wins_over_the_file(ini: Path, name: str) -> None:
    settings = load(ini, "[Default]\nFlask_tcp_port = 1\nFlask_tcp_ip = 10.0.0.1\n", **{name: "2"})
    assert (settings.Flask_tcp_port, settings.Flask_tcp_ip) == (2, "10.0.0.1")


@pytest.mark.parametrize("section", ["Default", "DEFAULT", "default"])
def test_the_section_and_the_keys_are_found_in_any_case(ini: Path, section: str) -> None:
    assert load(ini, f"[{section}]\nflask_TCP_port = 5\n").Flask_tcp_port == 5


def test_relative_paths_count_from_the_files_folder(ini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    text = "[Default]\nplaybook_root = p/../q\nrbac_file = r.json\ndata_dir = ./d\ndefault_inventory = inv/dev\n"
    settings = load(ini, text)
    base = ini.parent
    assert settings.base_dir == base
    assert settings.playbook_root == base / "p/../q"
    assert settings.rbac_file == base / "r.json"
    assert settings.data_dir == base / "d"
    assert settings.default_inventory == str(base / "inv/dev")


def test_relative_paths_in_variables_count_from_the_files_folder_as_well(ini: Path) -> None:
    assert load(ini, "[Default]\n", FLANSIBLE_PLAYBOOK_ROOT="p").playbook_root == ini.parent / "p"


def test_a_tilde_is_the_home_directory(ini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert load(ini, "[Default]\nplaybook_root = ~/p\n").playbook_root == Path("/home/somebody/p")


def test_a_default_inventory_that_is_a_host_list_stays_one(ini: Path) -> None:
    assert load(ini, "[Default]\ndefault_inventory = web1,web2,\n").default_inventory == "web1,web2,"


@pytest.mark.parametrize("key", ["playbook_root", "rbac_file", "data_dir", "default_inventory"])
def test_an_empty_path_means_the_default(ini: Path, key: str) -> None:
    assert getattr(load(ini, f"[Default]\n{key} =\n"), key) == getattr(load(ini, "[Default]\n"), key)


BAD_TEXTS = {
    "a wrong scheme": "[Default]\nCELERY_BROKER_URL = http://user:hunter2@host\n",
    "a wrong scheme for records": "[Default]\nCELERY_RESULT_BACKEND = amqp://user:hunter2@host\n",
    "a wrong scheme for the history": "[Default]\nDATABASE_URL = mysql://user:hunter2@host/x\n",
    "a wrong port of the history": "[Default]\nDATABASE_URL = postgresql+psycopg://user:hunter2@host:port/x\n",
    "a misspelt key": "[Default]\nCELERY_BROKER_URI = redis://:hunter2@host/0\n",
    "no section": "CELERY_BROKER_URL = redis://:hunter2@host/0\n",
    "no equals sign": "[Default]\nCELERY_BROKER_URL redis://hunter2@host/0\n",
    "a value on a line of its own": "[Default]\nCELERY_BROKER_URL =\nhunter2\n",
    "a broken section": "[Default\nCELERY_BROKER_URL = redis://:hunter2@host/0\n",
    "the key twice": "[Default]\nCELERY_BROKER_URL = redis://:hunter2@a\nCELERY_BROKER_URL = redis://:hunter2@b\n",
    "another fault beside it": "[Default]\nCELERY_BROKER_URL = redis://:hunter2@host/0\nFlask_tcp_port = x\n",
}


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_no_message_ever_shows_the_password_in_a_url(ini: Path, text: str) -> None:
    for fault in faults_of(ini, text):
        assert SECRET not in str(fault)
        assert fault.source == str(ini)


def test_no_message_ever_shows_the_password_in_a_variable(ini: Path) -> None:
    for fault in faults_of(ini, "[Default]\n", FLANSIBLE_CELERY_BROKER_URL=f"http://u:{SECRET}@host"):
        assert SECRET not in str(fault)
        assert fault.source == "FLANSIBLE_CELERY_BROKER_URL"


def test_the_embedded_history_goes_only_with_an_embedded_redis(ini: Path) -> None:
    assert load(ini, "[Default]\ndata_dir = d\n").database_url == f"sqlite:///{ini.parent}/d/history.sqlite3"
    external = "[Default]\nCELERY_RESULT_BACKEND = redis://somewhere\n"
    assert load(ini, external).database_url is None
    named = "postgresql+psycopg://u:p@host/name"
    assert load(ini, f"{external}DATABASE_URL = {named}\n").database_url == named


def test_a_named_file_that_does_not_exist_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        config.load(str(tmp_path / "missing.ini"), {})


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[Default]\n[Default]\n", b"[Default"])
def test_a_file_that_cannot_be_parsed_is_a_fault_on_one_line(ini: Path, content: bytes) -> None:
    ini.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        config.load(str(ini), {})
    assert len(caught.value.faults) == 1
    assert "\n" not in str(caught.value)


def test_a_directory_in_place_of_the_file_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        config.load(str(tmp_path), {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("CELERY_TASK_TIMEOUT", "0"),
        ("CELERY_TASK_TIMEOUT", "1.5"),
        ("Flask_tcp_port", "0"),
        ("Flask_tcp_port", ""),
        ("Flask_tcp_ip", "1.2.3.4/8"),
        ("Flask_tcp_ip", ""),
        ("worker_concurrency", "0"),
        ("grace_seconds", "-1"),
        ("grace_seconds", "nan"),
        ("grace_seconds", "inf"),
        ("drain_seconds", "inf"),
        ("drain_seconds", "nan"),
        ("max_body_bytes", "10"),
        ("fork_servers", "0"),
        ("retention_days", "0"),
        ("log_level", "LOUD"),
        ("CELERY_RESULT_BACKEND", "amqp://host"),
        ("CELERY_BROKER_URL", ""),
    ],
)
def test_a_value_that_makes_no_sense_is_a_fault_with_its_key(ini: Path, key: str, value: str) -> None:
    [fault] = faults_of(ini, f"[Default]\n{key} = {value}\n")
    assert (fault.source, fault.key) == (str(ini), key)


@pytest.mark.parametrize(
    "url", ["embedded", "redis://h", "rediss://h", "redis+socket:///s", "amqp://h", "amqps://h//vhost"]
)
def test_every_kind_of_broker_is_taken(ini: Path, url: str) -> None:
    assert load(ini, f"[Default]\nCELERY_BROKER_URL = {url}\n").CELERY_BROKER_URL == url


def test_a_percent_sign_is_just_a_percent_sign(ini: Path) -> None:
    assert load(ini, "[Default]\nCELERY_BROKER_URL = redis://:p%40ss@h\n").broker_url == "redis://:p%40ss@h"


def test_embedded_is_a_socket_in_the_data_directory(ini: Path) -> None:
    settings = load(ini, "[Default]\ndata_dir = /d\n")
    assert settings.store_url == settings.broker_url == "redis+socket:///d/redis.sock"
    assert settings.embeds_redis


def test_a_deep_data_directory_gets_a_socket_path_that_fits(ini: Path) -> None:
    deep = "/srv/" + "deep/" * 40
    one, other = (load(ini, f"[Default]\ndata_dir = {deep}{name}\n").redis_socket for name in ("a", "b"))
    assert len(str(one)) < 100
    assert one != other
    assert one == load(ini, f"[Default]\ndata_dir = {deep}a\n").redis_socket


def test_the_ssh_profile_is_one_of_two(ini: Path) -> None:
    assert load(ini, "[Default]\n").ssh_profile == "default"
    assert load(ini, "[Default]\nssh_profile = fast\n").ssh_profile == "fast"
    with pytest.raises(ConfigurationError, match="ssh_profile"):
        load(ini, "[Default]\nssh_profile = faster\n")


@pytest.mark.parametrize("data_dir", ["/srv/" + "deep/" * 40, "/srv/50%d", "/srv/two words"])
def test_masters_of_ssh_have_short_and_plain_paths(ini: Path, data_dir: str) -> None:
    assert str(load(ini, "[Default]\ndata_dir = /srv/flansible\n").ssh_masters_dir) == "/srv/flansible/ssh"
    found = load(ini, f"[Default]\ndata_dir = {data_dir}\n").ssh_masters_dir
    assert len(str(found)) <= 56
    assert found.name.endswith("-ssh")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(ini: Path, address: str, expected: bool) -> None:
    assert load(ini, f"[Default]\nFlask_tcp_ip = {address}\n").listens_on_loopback is expected


def test_every_key_has_a_help_text() -> None:
    assert [key for key in config.KEYS if not config.Settings.model_fields[key].description] == []
