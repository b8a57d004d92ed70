"""Credentials opened from the database: by whom, and from an external store."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from flansible.definitions import secret_source
from flansible.definitions.definition_store import Condition, Definitions, NewDefinition
from flansible.definitions.kinds import CREDENTIALS
from flansible.definitions.secret_source import SecretFunction, SecretRequest
from flansible.definitions.stored_credentials import Credentials
from flansible.errors import ConfigurationError, Forbidden, NotFound, SecretUnavailable, Unavailable
from flansible.history.definition_rows import DefinitionRows
from flansible.identity.users import ADMIN, User
from flansible.sealing import Sealer
from tests.helpers.history import opened

SECRET = "marker-of-a-secret"
ROOT = User(name=ADMIN, password="x", inventories=())
ANNA = User(name="anna", password="x", inventories=(), may_define=("credentials",))
BERT = User(name="bert", password="x", inventories=(), credentials=("web-*",))
VIEWER = User(name="carl", password="x", inventories=(), credentials=("web-*",), role="viewer")


class Room:
    """The credentials of one database."""

    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions

    def put(self, user: User, name: str, /, **document: Any) -> None:
        given = NewDefinition(CREDENTIALS, name, document)
        self.definitions.put(user, given, Condition(), lambda spec, found: spec.model_validate(found), lambda *_: None)

    def opens(self, function: SecretFunction | None = None) -> Credentials:
        return Credentials(self.definitions, function)


@pytest.fixture
def room(history_url: str, tmp_path: Path) -> Iterator[Room]:
    with opened(history_url) as database:
        yield Room(Definitions(DefinitionRows(database), Sealer(tmp_path / "secret.key")))


def test_a_secret_is_opened_for_those_who_may_use_it(room: Room) -> None:
    room.put(ROOT, "web-1", kind="become", password=SECRET, user="app")
    found = room.opens().open(BERT, "web-1")
    assert (found.owner, found.spec.password, found.spec.user) == (ADMIN, SECRET, "app")
    assert SECRET not in repr(found)
    for user in (ANNA, VIEWER):
        with pytest.raises(Forbidden):
            room.opens().open(user, "web-1")
    with pytest.raises(Forbidden, match=r"credentials\[0\]: You may not use credential db-1"):
        room.opens().open(BERT, "db-1", "credentials[0]")
    with pytest.raises(NotFound) as missing:
        room.opens().open(BERT, "web-2", "credentials[1]")
    assert [item.field for item in missing.value.errors] == ["credentials[1]"]


def test_the_owner_may_use_and_change_it(room: Room) -> None:
    room.put(ANNA, "mine", kind="vault", password=SECRET)
    room.put(ANNA, "mine", kind="vault", vault_id="prod")
    spec = room.opens().open(ANNA, "mine").spec
    assert (spec.password, spec.vault_id) == (SECRET, "prod")
    with pytest.raises(Forbidden):
        room.opens().open(BERT, "mine")


def test_those_who_may_use_it_read_what_is_not_sealed(room: Room) -> None:
    room.put(ROOT, "web-1", kind="environment", variables={"AWS_KEY": SECRET})
    assert room.definitions.get(BERT, CREDENTIALS, "web-1").spec == {"kind": "environment", "names": ["AWS_KEY"]}
    assert [row.name for row in room.definitions.page(BERT, CREDENTIALS, "", 10)[0]] == ["web-1"]
    assert room.definitions.page(VIEWER, CREDENTIALS, "", 10)[0] == []
    with pytest.raises(NotFound):
        room.definitions.get(ANNA, CREDENTIALS, "web-1")


def test_the_database_has_no_secret(room: Room) -> None:
    room.put(ROOT, "web-1", kind="environment", variables={"AWS_KEY": SECRET})
    room.put(ROOT, "web-2", kind="become", password=SECRET)
    with room.definitions._rows._database.reading() as connection:
        rows = connection.execute(text("SELECT * FROM definitions")).all()
    assert len(rows) == 2 and SECRET not in str(rows)


def test_a_source_is_for_admin_alone(room: Room) -> None:
    with pytest.raises(Forbidden) as refused:
        room.put(ANNA, "mine", kind="become", source={"path": "x"})
    assert [item.field for item in refused.value.errors] == ["source"]


def fail(_request: SecretRequest) -> dict[str, Any]:
    raise RuntimeError(f"cannot send {SECRET}")


FAILURES: list[tuple[SecretFunction | None, str]] = [
    (None, "no secret_function"),
    (fail, "secret_function failed: RuntimeError"),
    (lambda _: [SECRET], "returned list"),  # type: ignore[arg-type, return-value]
    (lambda _: {}, "no secret of the kind become: password is missing"),
    (lambda _: {"password": SECRET + "\n"}, "password must be one line"),
    (lambda _: {"token": SECRET}, "token is no field of the kind become"),
    (lambda _: {"owner": SECRET}, "1 fields that no credential has"),
]


@pytest.mark.parametrize(("function", "words"), FAILURES)
def test_a_failure_of_the_function_is_said_without_a_secret(
    function: SecretFunction | None, words: str, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    room.put(ROOT, "web-1", kind="become", source={"path": "x"})
    with pytest.raises(Unavailable) as caught:
        room.opens(function).open(BERT, "web-1", "credentials[0]")
    assert caught.value.code == "secret_unavailable" and words in caught.value.message
    assert caught.value.errors[0].field == "credentials[0]"
    assert SECRET not in f"{caught.value} {caught.value.errors} {caplog.text}"


@pytest.mark.parametrize("name", ["no_such_module_here:who", "json:no_such_function", "json:__doc__"])
def test_a_function_that_cannot_be_had_is_a_fault(name: str) -> None:
    with pytest.raises(ConfigurationError, match="secret_function"):
        secret_source.load(name)


class StandInForVault(ThreadingHTTPServer):
    """Stands in for HashiCorp Vault: its AppRole login and the KV engine, version 2, as far as they are read here."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _VaultHandler)
        self.secrets = {"secret/data/hosts/web": {"sudo": SECRET, "user": "app"}}
        self.tokens: set[str] = set()
        self.is_sealed = False


class _VaultHandler(BaseHTTPRequestHandler):
    server: StandInForVault

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.is_sealed:
            return self._reply(503, {"errors": ["Vault is sealed"]})
        if self.path != "/v1/auth/approle/login" or given != {"role_id": "the-role", "secret_id": "the-id"}:
            return self._reply(400, {"errors": ["invalid role or secret ID"]})
        token = f"hvs.{len(self.server.tokens)}"
        self.server.tokens.add(token)
        return self._reply(200, {"auth": {"client_token": token, "lease_duration": 3600, "renewable": True}})

    def do_GET(self) -> None:
        if self.headers.get("X-Vault-Token") not in self.server.tokens:
            return self._reply(403, {"errors": ["permission denied"]})
        found = self.server.secrets.get(self.path.removeprefix("/v1/"))
        if found is None:
            return self._reply(404, {"errors": []})
        return self._reply(200, {"data": {"data": found, "metadata": {"version": 3}}})

    def _reply(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def vault() -> Iterator[StandInForVault]:
    server = StandInForVault()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def documented(vault: StandInForVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretFunction]:
    """The function of the documentation, with the stand-in in place of Vault."""
    page = (Path(__file__).parents[2] / "docs/credentials.md").read_text()
    example = page.partition("```python\n")[2].partition("```")[0]
    address = f"http://127.0.0.1:{vault.server_address[1]}"
    example = re.sub('https://vault[^"]*', address, example).replace("/etc/flansible/vault", f"{tmp_path}/vault")
    (tmp_path / "documented_vault.py").write_text(example)
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault/role_id").write_text("the-role\n")
    (tmp_path / "vault/secret_id").write_text("the-id\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    function = secret_source.load("documented_vault:fetch")
    assert function is not None
    yield function
    del sys.modules["documented_vault"]


def request(path: str = "secret/data/hosts/web", **fields: Any) -> SecretRequest:
    return SecretRequest("web-1", "become", {"path": path, "fields": fields or {"password": "sudo", "user": "user"}})


def test_the_documented_function_reads_vault(documented: SecretFunction, room: Room) -> None:
    room.put(ROOT, "web-1", kind="become", source=dict(request().source))
    spec = room.opens(documented).open(BERT, "web-1").spec
    assert (spec.password, spec.user) == (SECRET, "app")
    assert documented(request(variables={"AWS_KEY": "sudo"})) == {"variables": {"AWS_KEY": SECRET}}


def test_the_documented_function_says_what_is_wrong(
    documented: SecretFunction, vault: StandInForVault, tmp_path: Path
) -> None:
    def said(wanted: SecretRequest) -> str:
        with pytest.raises(SecretUnavailable) as caught:
            documented(wanted)
        assert SECRET not in str(caught.value)
        return str(caught.value)

    assert said(request("secret/data/none")) == "Vault has no secret/data/none for this role: status 404"
    assert said(request(password="other")) == "secret/data/hosts/web has no other"
    vault.is_sealed = True
    assert said(request()) == "Vault refuses the login: status 503"
    vault.is_sealed = False
    (tmp_path / "vault/secret_id").write_text("guess")
    assert said(request()) == "Vault refuses the login: status 400"
    vault.shutdown()
    vault.server_close()
    assert said(request()) == "Vault cannot be reached: ConnectError"
