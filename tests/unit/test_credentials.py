"""Stored secrets in requests: the fields of each kind, who may use which, and what becomes of the request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flansible.authorization import authorize
from flansible.authorization.isolation import Isolation
from flansible.authorization.rules.credential_rules import UsedCredential, UsedCredentials
from flansible.config import Settings
from flansible.errors import Forbidden, InvalidRequest, RequestError
from flansible.identity import users as rbac_users
from flansible.models import AdhocRequest, AuthorizedRun, Secrets, private_keys
from flansible.models.credential_spec import CredentialSpec
from flansible.models.definition_specs import reply_model, sealed_fields
from tests.helpers.authorizing import CONFINED

WORD = "marker-of-a-secret"
KEY = f"-----BEGIN PRIVATE KEY-----\n{WORD}\n-----END PRIVATE KEY-----\n"
ENCRYPTED = KEY.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")


@pytest.fixture
def root(tree: Path) -> Path:
    return tree


@pytest.fixture
def settings_folder(root: Path) -> Path:
    return root


GOOD: list[dict[str, Any]] = [
    {"kind": "ssh", "private_key": KEY, "user": "deploy"},
    {"kind": "ssh", "private_key": ENCRYPTED, "private_key_passphrase": WORD},
    {"kind": "ssh", "private_key": "\ufeff" + KEY.replace("\n", "\r\n")},
    {"kind": "ssh", "password": WORD},
    {"kind": "become", "password": WORD, "user": "root"},
    {"kind": "vault", "password": WORD, "vault_id": "prod"},
    {"kind": "git", "private_key": KEY},
    {"kind": "git", "user": "robot", "token": WORD},
    {"kind": "git", "user": "robot", "password": WORD},
    {"kind": "environment", "variables": {"AWS_SECRET_ACCESS_KEY": WORD}},
    {"kind": "http", "token": WORD, "variable": "api_token"},
    {"kind": "http", "token": WORD},
    {"kind": "become", "source": {"path": "x"}, "user": None, "password": None},
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "kind"),
    ({"kind": "telnet"}, "kind"),
    ({"kind": "ssh"}, "private_key"),
    ({"kind": "ssh", "private_key": WORD}, "private_key"),
    ({"kind": "ssh", "private_key": KEY.replace("PRIVATE", "PUBLIC")}, "private_key"),
    ({"kind": "ssh", "private_key": ENCRYPTED}, "private_key"),
    ({"kind": "ssh", "private_key": KEY, "private_key_passphrase": WORD}, "private_key"),
    ({"kind": "ssh", "private_key": KEY, "password": WORD}, "private_key"),
    ({"kind": "ssh", "password": WORD, "private_key_passphrase": WORD}, "private_key"),
    ({"kind": "ssh", "password": "two\nlines"}, "password"),
    ({"kind": "ssh", "password": WORD, "user": "two words"}, "user"),
    ({"kind": "ssh", "password": WORD, "user": "-oProxyCommand=x"}, "user"),
    ({"kind": "become", "password": WORD, "token": WORD}, "token"),
    ({"kind": "become", "password": WORD, "vault_id": "x"}, "vault_id"),
    ({"kind": "become"}, "password"),
    ({"kind": "vault", "password": WORD, "vault_id": "a@b"}, "vault_id"),
    ({"kind": "git", "token": WORD}, "user"),
    ({"kind": "git", "token": WORD, "password": WORD, "user": "x"}, "token"),
    ({"kind": "environment"}, "variables"),
    ({"kind": "environment", "variables": {}}, "variables"),
    ({"kind": "environment", "variables": {"A-B": WORD}}, "variables"),
    ({"kind": "environment", "variables": {"A": 1}}, "variables"),
    ({"kind": "http", "variable": "x"}, "token"),
    ({"kind": "http", "token": WORD, "variable": "a b"}, "variable"),
    ({"kind": "http", "token": WORD, "source": {}}, "token"),
    ({"kind": "http", "source": "text"}, "source"),
    ({"kind": "http", "token": WORD, "secret": 1}, "secret"),
]


@pytest.mark.parametrize("document", GOOD, ids=str)
def test_a_good_credential_shows_no_secret(document: dict[str, Any]) -> None:
    spec = CredentialSpec.model_validate(document)
    assert WORD not in repr(spec)
    shown = {name: value for name, value in spec.model_dump().items() if name not in sealed_fields(CredentialSpec)}
    assert WORD not in json.dumps(shown)
    assert not sealed_fields(CredentialSpec) & set(reply_model(CredentialSpec).model_fields)


@pytest.mark.parametrize(("document", "field"), BAD, ids=str)
def test_a_fault_names_its_field_and_no_secret(document: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        CredentialSpec.model_validate(document)
    errors = caught.value.errors(include_input=False, include_url=False, include_context=False)
    assert {str(item["loc"][0]) for item in errors} == {field}
    assert WORD not in str(errors)


def test_names_of_variables_are_shown_and_follow_from_the_values() -> None:
    document = {"kind": "environment", "variables": {"B": WORD, "A": WORD}, "names": ["OLD"]}
    assert CredentialSpec.model_validate(document).names == ["A", "B"]


def test_a_key_is_mended_when_it_is_stored() -> None:
    spec = CredentialSpec.model_validate({"kind": "ssh", "private_key": KEY.replace("\n", "\r\n").rstrip()})
    assert spec.private_key == KEY == private_keys.mended(KEY)


class Using:
    """Requests by one user that name credentials, each opened already. owner: of all of them."""

    def __init__(self, root: Path, settings: Settings, owner: str = "admin", **entry: Any) -> None:
        self._root, self._settings, self._owner = root, settings, owner
        document = {"rbac": [{"user": "admin", "password": "x"}], "groups": entry.pop("in_groups", [])}
        document["rbac"].append({"user": "dev", "password": "x", "inventories": ["inv/dev"], **entry})
        self.users = rbac_users.parse(json.dumps(document), root / "rbac.json")

    def run(
        self, *documents: dict[str, Any], user: str = "dev", isolation: Isolation = CONFINED, **fields: Any
    ) -> AuthorizedRun:
        opened = [
            UsedCredential(f"credentials[{number}]", f"c{number}", self._owner, CredentialSpec.model_validate(document))
            for number, document in enumerate(documents)
        ]
        own = frozenset(one.name for one in opened if one.owner == user)
        given = {"module": "ping", "inventory": str(self._root / "inv/dev"), **fields}
        request = AdhocRequest.model_validate({**given, "credentials": [one.name for one in opened]})
        used = UsedCredentials(own, tuple(opened))
        return authorize.authorize_adhoc(self.users[user], request, self._settings, isolation, used)


SSH, PASSWORD = {"kind": "ssh", "private_key": KEY}, {"kind": "ssh", "password": WORD}
BECOME, VAULT = {"kind": "become", "password": WORD}, {"kind": "vault", "password": WORD}
TOKEN = {"kind": "http", "token": WORD, "variable": "api_token"}
REGION = {"kind": "environment", "variables": {"AWS_KEY": WORD}}
ALL = {"credentials": ["c*"]}


def test_each_kind_becomes_what_a_secret_field_would_be(root: Path, settings: Settings) -> None:
    using = Using(root, settings, **ALL)
    run = using.run({**SSH, "user": "deploy"}, {**BECOME, "user": "app"}, VAULT, TOKEN, REGION)
    assert run.secrets == Secrets(
        agent_key=KEY,
        become_password=WORD,
        vault_passwords={"default": WORD},
        variables={"api_token": WORD},
        environment={"AWS_KEY": WORD},
    )
    options = {"--user=deploy", "--become-user=app", "--ask-become-pass", "--vault-id=default@prompt"}
    assert options <= set(run.steps[-1].argv)
    assert run.credentials == ("c0", "c1", "c2", "c3", "c4")
    assert run.request["credentials"] == list(run.credentials) and "become_password" not in run.request
    assert WORD not in run.model_dump_json() and WORD not in repr(run)
    by_password = using.run(PASSWORD)
    assert by_password.secrets == Secrets(connection_password=WORD) and "--ask-pass" in by_password.steps[-1].argv


def test_the_run_never_gets_the_key_of_the_agent(root: Path, settings: Settings) -> None:
    secrets = (
        Using(root, settings, **ALL).run({**SSH, "private_key": ENCRYPTED, "private_key_passphrase": WORD}).secrets
    )
    assert secrets is not None and secrets.agent_key == ENCRYPTED and WORD not in json.dumps(secrets.for_run)


def test_what_the_request_says_itself_counts(root: Path, settings: Settings) -> None:
    run = Using(root, settings, **ALL).run({**SSH, "user": "deploy"}, remote_user="me", vault_password="own")
    assert "--user=me" in run.steps[-1].argv
    assert run.secrets and run.secrets.vault_passwords == {"default": "own"}
    other = Using(root, settings, **ALL).run({**VAULT, "vault_id": "prod"}, vault_password="own")
    assert other.secrets and other.secrets.vault_passwords == {"default": "own", "prod": WORD}


CONFLICTS: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
    ([SSH, SSH], {}, "credentials[1]"),
    ([PASSWORD, PASSWORD], {}, "credentials[1]"),
    ([BECOME, BECOME], {}, "credentials[1]"),
    ([VAULT, {**VAULT, "vault_id": "default"}], {}, "credentials[1]"),
    ([REGION, REGION], {}, "credentials[1]"),
    ([TOKEN, TOKEN], {}, "credentials[1]"),
    ([SSH], {"private_key": KEY}, "credentials[0]"),
    ([SSH], {"private_key_file": "key"}, "credentials[0]"),
    ([PASSWORD], {"connection_password": "x"}, "credentials[0]"),
    ([BECOME], {"become_password": "x"}, "credentials[0]"),
    ([VAULT], {"vault_password": "x"}, "credentials[0]"),
    ([REGION], {"environment": {"AWS_KEY": "x"}}, "credentials[0]"),
    ([TOKEN], {"secret_vars": {"api_token": "x"}}, "credentials[0]"),
    ([{"kind": "http", "token": WORD}], {}, "credentials[0]"),
    ([{"kind": "git", "private_key": KEY}], {}, "credentials[0]"),
    ([{**VAULT, "vault_id": f"v{number}", "password": "x" * 65536} for number in range(17)], {}, "credentials"),
]


@pytest.mark.parametrize(("documents", "fields", "place"), CONFLICTS)
def test_two_secrets_of_one_use_are_refused(
    documents: list[dict[str, Any]], fields: dict[str, Any], place: str, root: Path, settings: Settings
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Using(root, settings).run(*documents, user="admin", **fields)
    assert [item.field for item in caught.value.errors] == [place]
    assert WORD not in str(caught.value)


def refused(using: Using, *documents: dict[str, Any], **options: Any) -> tuple[str, list[str]] | None:
    try:
        using.run(*documents, **options)
    except RequestError as refusal:
        assert isinstance(refusal, Forbidden) and WORD not in str(refusal)
        return refusal.code, [item.field for item in refusal.errors]
    return None


def test_rbac_json_says_who_may_use_which(root: Path, settings: Settings) -> None:
    assert refused(Using(root, settings), VAULT) == ("credential_forbidden", ["credentials[0]"])
    assert refused(Using(root, settings, credentials=["d*"]), VAULT) == ("credential_forbidden", ["credentials[0]"])
    assert refused(Using(root, settings, credentials=["c0"]), VAULT) is None
    assert refused(Using(root, settings, credentials=["c0"]), VAULT, TOKEN) == (
        "credential_forbidden",
        ["credentials[1]"],
    )
    assert refused(Using(root, settings, owner="dev"), VAULT) is None
    assert refused(Using(root, settings), VAULT, user="admin") is None
    viewer = Using(root, settings, credentials=["*"], role="viewer")
    assert refused(viewer, VAULT) == ("role_forbidden", [])


def test_one_entry_has_to_allow_the_credential_and_all_else(root: Path, settings: Settings) -> None:
    """The own entry has the inventory, the group the credential: together they are no right."""
    group = {"name": "ops", "inventories": ["inv/prod"], "credentials": ["c*"]}
    using = Using(root, settings, in_groups=[group], groups=["ops"])
    assert refused(using, VAULT) is not None
    whole = Using(root, settings, in_groups=[{**group, "inventories": ["inv/dev"]}], groups=["ops"])
    assert whole.run(VAULT).entry == "group:ops"


@pytest.mark.parametrize("isolation", [Isolation("none"), Isolation("auto", "bwrap is not installed")], ids=str)
def test_where_runs_are_not_confined_none_may_be_used(isolation: Isolation, root: Path, settings: Settings) -> None:
    expected = ("credential_unconfined", ["credentials"])
    assert refused(Using(root, settings, **ALL), VAULT, isolation=isolation) == expected
    assert refused(Using(root, settings, owner="dev"), VAULT, isolation=isolation) == expected
    assert refused(Using(root, settings), VAULT, user="admin", isolation=Isolation("none")) is None


def test_a_become_password_is_for_those_who_may_become(root: Path, settings: Settings) -> None:
    assert refused(Using(root, settings, become=False, **ALL), BECOME) == ("become_forbidden", ["credentials[0]"])


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PATH", "PYTHONPATH", "ANSIBLE_LIBRARY", "AWS_KEY"])
def test_variables_of_a_users_own_credential_are_those_of_the_rules(name: str, root: Path, settings: Settings) -> None:
    document = {"kind": "environment", "variables": {name: WORD}}
    expected = ("environment_forbidden", ["credentials[0]"])
    assert refused(Using(root, settings, owner="dev"), document) == expected
    # Nor does admin's run take them, which is not confined.
    assert refused(Using(root, settings, owner="dev"), document, user="admin") == expected
    assert refused(Using(root, settings, owner="dev", environment=[name]), document) is None
    assert refused(Using(root, settings, **ALL), document) is None


@pytest.mark.parametrize("name", ["root;id", "$(id)", "a`id`", "a'b", "a|b", "a&b", "a\\", "ａ;"])
def test_a_user_of_anothers_credential_is_a_plain_name_in_a_run_of_admins(
    name: str, root: Path, settings: Settings
) -> None:
    """Ansible pastes it into a shell line: `sudo -u NAME`."""
    for document, code in (
        ({**BECOME, "user": name}, "become_forbidden"),
        ({**SSH, "user": name}, "remote_user_forbidden"),
    ):
        using = Using(root, settings, owner="dev")
        assert refused(using, document, user="admin") == (code, ["credentials[0]"])
        assert refused(Using(root, settings), document, user="admin") is None
    assert refused(Using(root, settings, owner="dev"), {**BECOME, "user": "DOMAIN\\app-1"}, user="admin") is None


def test_a_token_becomes_no_variable_that_redirects_a_run(root: Path, settings: Settings) -> None:
    document = {**TOKEN, "variable": "ansible_python_interpreter"}
    for owner, user in (("dev", "dev"), ("dev", "admin"), ("admin", "dev")):
        found = refused(Using(root, settings, owner=owner, **ALL), document, user=user)
        assert found is not None and found[0] == "connection_variable_forbidden"
