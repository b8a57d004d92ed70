"""API tokens: made, kept hashed, found again while they are in force."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from flansible.cli import cli
from flansible.errors import ConfigurationError
from flansible.identity import tokens
from flansible.identity.tokens import NewToken, TokenFile

pytestmark = pytest.mark.usefixtures("cheap_hashes")

NOW = datetime(2026, 11, 22, 8, 0, 0, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tokens.json"


def added(path: Path, user: str = "dev", expires: datetime | None = None) -> NewToken:
    made = tokens.make(user, "run", expires, NOW)
    tokens.add(path, made.token)
    return made


def test_tokens_that_expired_long_ago_leave_the_file(path: Path) -> None:
    old, late = added(path, expires=NOW - timedelta(days=31)), added(path, expires=NOW - timedelta(days=1))
    new = added(path)
    assert [one.id for one in tokens.read(path)] == [late.token.id, new.token.id] and old.token.id != new.token.id


def test_a_token_is_found_by_its_text(path: Path) -> None:
    one, other = added(path), added(path, "ops")
    file = TokenFile(path)
    assert file.find(one.text, NOW) == one.token
    found = file.find(other.text, NOW)
    assert found is not None and found.user == "ops"


def test_the_secret_is_nowhere_but_in_the_text(path: Path) -> None:
    made = added(path)
    secret = made.text.rpartition("_")[2]
    assert len(secret) == 64 and tokens.TEXT.fullmatch(made.text)
    kept = path.read_text() + repr(made) + repr(made.token) + repr(vars(TokenFile(path)))
    assert secret not in kept and made.token.id in kept


def test_the_file_and_its_folder_are_for_their_owner_alone(path: Path) -> None:
    added(path)
    added(path)
    assert [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent)] == [0o600, 0o700]
    assert os.listdir(path.parent) == ["tokens.json"]


def test_what_is_not_quite_the_token_is_none(path: Path) -> None:
    made = added(path)
    other = added(path)
    file = TokenFile(path)
    swapped = f"flansible_{made.token.id}_{other.text.rpartition('_')[2]}"
    unknown = f"flansible_{'0' * 12}_{made.text.rpartition('_')[2]}"
    odd = ["", "x", made.text[:-1], made.text + "0", made.text.upper(), made.text + "\n", "\ud800", "x" * 1_000_000]
    for text in (swapped, unknown, made.token.digest, f"flansible_{made.token.id}_{made.token.digest}", *odd):
        assert file.find(text, NOW) is None, text[:100]


def test_an_expired_token_is_none(path: Path) -> None:
    made = added(path, expires=NOW + timedelta(hours=1))
    file = TokenFile(path)
    assert file.find(made.text, NOW + timedelta(minutes=59)) is not None
    assert file.find(made.text, NOW + timedelta(hours=1)) is None


def test_a_revoked_token_is_none_with_the_next_question(path: Path) -> None:
    made, other = added(path), added(path)
    file = TokenFile(path)
    assert file.find(made.text, NOW) is not None
    assert tokens.remove(path, made.token.id) == made.token
    assert file.find(made.text, NOW) is None
    assert file.find(other.text, NOW) is not None
    assert tokens.remove(path, made.token.id) is None


def test_a_token_made_later_is_found_at_once(path: Path) -> None:
    file = TokenFile(path)
    made = added(path)
    assert file.find(made.text, NOW) is not None
    path.unlink()
    assert file.find(made.text, NOW) is None, "no file: no tokens"


def test_while_the_file_is_broken_no_token_is_in_force_and_it_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = added(path)
    good = path.read_text()
    told: list[tuple[str, bool]] = []
    file = TokenFile(path, lambda what, is_good: told.append((what, is_good)))
    for broken in ("", "{", "[]", '{"tokens": [{}]}', good.replace('"run"', '"all"'), "\xff"):
        path.write_text(broken, encoding="latin-1")
        with caplog.at_level(logging.ERROR):
            assert [file.find(made.text, NOW) for _ in range(3)] == [None] * 3
        path.write_text(good)
        assert file.find(made.text, NOW) is not None
    assert len(caplog.records) == 6
    assert [is_good for _, is_good in told] == [False, True] * 6
    assert not any(made.token.digest in record.getMessage() for record in caplog.records)


def test_a_broken_file_stops_the_start_and_the_commands_leave_it_alone(path: Path) -> None:
    made = added(path)
    path.write_text('{"tokens": [{"id": "x"}]}')
    for attempt in (lambda: TokenFile(path), lambda: tokens.add(path, made.token), lambda: tokens.remove(path, "x")):
        with pytest.raises(ConfigurationError, match="is not a valid token file"):
            attempt()
    assert path.read_text() == '{"tokens": [{"id": "x"}]}'


FAULTY = [
    ({"scop": "run"}, 'token "{id}" of dev: unknown key "scop", did you mean "scope"?'),
    ({"scope": "all"}, "token \"{id}\" of dev: scope: must be 'read' or 'run'"),
    ({"user": ""}, 'token "{id}" of : user: must have at least 1 character'),
]


@pytest.mark.parametrize(("change", "words"), FAULTY, ids=str)
def test_a_faulty_token_is_named_with_its_user_and_key(path: Path, change: dict[str, str], words: str) -> None:
    made = added(path)
    document = json.loads(path.read_text())
    document["tokens"][0] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigurationError) as caught:
        tokens.read(path)
    assert words.format(id=made.token.id) in str(caught.value)
    assert made.token.digest not in str(caught.value)


def test_a_key_beside_the_tokens_is_named(path: Path) -> None:
    path.parent.mkdir()
    for text, words in (
        ('{"tokens": [], "Token": 1}', 'unknown key "Token", did you mean "tokens"?'),
        ('{"tokens": [5]}', "tokens[0]: must be an object"),
        ("[]", "must be an object"),
        ('{"tokens": 5}', "tokens: must be a list"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigurationError) as caught:
            tokens.read(path)
        assert str(caught.value) == f"{path}: is not a valid token file: {words}"


def test_tokens_made_at_the_same_time_are_all_kept(path: Path) -> None:
    threads = [threading.Thread(target=added, args=(path,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens.read(path)) == 20


def test_an_unknown_token_costs_as_much_as_a_wrong_one(path: Path) -> None:
    made = added(path)
    file = TokenFile(path)

    def seconds(text: str) -> float:
        began = time.thread_time()
        for _ in range(2000):
            file.find(text, NOW)
        return time.thread_time() - began

    wrong = f"flansible_{made.token.id}_{'0' * 64}"
    unknown = f"flansible_{'0' * 12}_{'0' * 64}"
    assert 0.5 < min(seconds(unknown) for _ in range(3)) / min(seconds(wrong) for _ in range(3)) < 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("30d", NOW + timedelta(days=30)),
        ("12h", NOW + timedelta(hours=12)),
        ("90m", NOW + timedelta(minutes=90)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("never", None),
    ],
)
def test_when_a_token_expires_is_said_in_four_ways(given: str, expected: datetime | None) -> None:
    assert tokens.parse_expiry(given, NOW) == expected


@pytest.mark.parametrize("given", ["", "0d", "-1d", "1w", "d", "30", "2026-11-22", "2020-01-01", "2027-02-30", "Never"])
def test_what_is_no_time_to_come_is_refused(given: str) -> None:
    with pytest.raises(ValueError):
        tokens.parse_expiry(given, NOW)


# The commands


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "rbac.json").write_text(json.dumps({"rbac": [{"user": "dev", "password": "x"}]}))
    (tmp_path / "config.ini").write_text("[Default]\n")
    return str(tmp_path / "config.ini")


def command(config: str, *words: str) -> tuple[int, str, str]:
    name, sub, *rest = words
    result = CliRunner().invoke(cli, [name, sub, "--config", config, *rest])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_commands_make_list_and_revoke(config: str, tmp_path: Path) -> None:
    code, text, said = command(config, "token", "create", "dev", "--scope", "read", "--expires", "12h")
    assert code == 0 and tokens.TEXT.fullmatch(text.strip()) and "shown only now" in said
    token_id = text.split("_")[1]
    assert token_id in said
    _, listed, _ = command(config, "token", "list")
    assert token_id in listed and "dev" in listed and "read" in listed and "in force" in listed
    assert text.split("_")[2].strip() not in listed
    assert command(config, "token", "list", "ops")[1] == ""
    assert command(config, "token", "revoke", token_id)[0] == 0
    assert command(config, "token", "revoke", token_id)[0] == 1
    assert tokens.read(tmp_path / ".flansible/tokens.json") == []
    log = (tmp_path / ".flansible/audit.log").read_text()
    assert [json.loads(line)["event"] for line in log.splitlines()] == ["token_created", "token_revoked"]
    assert log.count(token_id) == 2 and text.split("_")[2].strip() not in log


def test_a_token_is_for_a_user_of_rbac_json(config: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="bob: is not a user"):
        command(config, "token", "create", "bob")
    assert not (tmp_path / ".flansible/tokens.json").exists()


def test_an_expiry_that_is_none_is_wrong_usage(config: str) -> None:
    assert command(config, "token", "create", "dev", "--expires", "yesterday")[0] == 2


def test_the_audit_command_says_whether_the_log_is_whole(config: str, tmp_path: Path) -> None:
    for _ in range(3):
        command(config, "token", "create", "dev")
    assert command(config, "audit", "verify") == (0, "3 records, 1 to 3, none missing or changed\n", "")
    log = tmp_path / ".flansible/audit.log"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text(lines[0] + lines[2])
    code, said, complaint = command(config, "audit", "verify")
    assert (code, said) == (1, "") and "audit.log: line 2: is record 3, and record 2 is missing" in complaint
    (tmp_path / ".flansible/secret.key").unlink()
    with pytest.raises(ConfigurationError, match="without the key"):
        command(config, "audit", "verify")


def test_no_token_is_made_when_the_audit_log_cannot_be_written(config: str, tmp_path: Path) -> None:
    (tmp_path / ".flansible/audit.log").mkdir(parents=True)
    with pytest.raises(Exception, match="cannot be written"):
        command(config, "token", "create", "dev")
    assert not (tmp_path / ".flansible/tokens.json").exists()


def test_a_password_that_is_set_is_told_without_the_password(config: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["passwd", "--config", config, "ops"], input="marker-secret\n")
    assert done.exit_code == 0, done.output
    [line] = [json.loads(line) for line in (tmp_path / ".flansible/audit.log").read_text().splitlines()]
    assert (line["event"], line["what"]) == ("password_set", "of ops")
    assert "marker-secret" not in json.dumps(line)
    with pytest.raises(ConfigurationError):
        CliRunner().invoke(cli, ["passwd", "--config", config, "a:b"], input="x\n", catch_exceptions=False)
    assert len((tmp_path / ".flansible/audit.log").read_text().splitlines()) == 1, "what was refused was not set"


def test_the_password_of_admin_has_eight_characters_or_more(config: str, tmp_path: Path) -> None:
    def passwd(user: str, password: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["passwd", "--config", config, user], input=f"{password}\n")
        return done.exit_code, done.output

    before = (tmp_path / "rbac.json").read_text()
    code, said = passwd("admin", "seven77")
    assert code == 2 and "must have 8 characters or more" in said
    assert (tmp_path / "rbac.json").read_text() == before
    assert passwd("admin", "eight888")[0] == 0
    assert passwd("ops", "seven77")[0] == 0


def test_inventories_that_are_replaced_are_told(config: str, tmp_path: Path) -> None:
    def passwd(*options: str) -> str:
        done = CliRunner().invoke(cli, ["passwd", "--config", config, "ops", *options], input="marker-secret\n")
        assert done.exit_code == 0, done.output
        return done.output

    assert "Replaced" not in passwd("--inventory", str(tmp_path / "a"), "--inventory", str(tmp_path / "b"))
    assert "Replaced" not in passwd()
    said = passwd("--inventory", str(tmp_path / "c"))
    assert f"Replaced the inventories of ops. They were: {tmp_path}/a, {tmp_path}/b\n" in said


def test_an_inventory_that_does_not_exist_is_named(config: str, tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    paths = ("--inventory", str(tmp_path / "dev"), "--inventory", str(tmp_path / "devv"))
    done = CliRunner().invoke(cli, ["passwd", "--config", config, "ops", *paths], input="marker-secret\n")
    assert done.exit_code == 0
    assert done.stderr.startswith(f"{tmp_path}/devv does not exist") and done.stderr.count("\n") == 1


def test_where_no_service_is_only_admin_gets_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLANSIBLE_CONFIG", raising=False)

    def passwd(user: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["passwd", user], input="marker-secret\n")
        return done.exit_code, done.stderr

    assert passwd("maria") == (2, "no config.ini here: cd to the service's folder, or give --config\n")
    assert not list(tmp_path.iterdir())
    assert passwd("admin")[0] == 0
    assert passwd("maria")[0] == 0, "admin is there now"
