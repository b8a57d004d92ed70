"""The web app without a service behind it: whatever tries to record or enqueue gets 503, so a 400 queued nothing."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.security import generate_password_hash

from flansible.config import Settings
from flansible.identity import passwords, users
from tests.helpers.authorizing import MAX_BODY_BYTES, SharedTree
from tests.helpers.passwords import CHEAP_HASHES


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    from flansible.web import create_app  # not for the process that only shares the tests out

    root = tmp_path_factory.mktemp("web")
    entries = [
        {"user": "admin", "password": "root"},
        {"user": "dev", "password": "secret", "inventories": ["inv/dev"]},
    ]
    (root / "rbac.json").write_text(json.dumps({"rbac": entries}))
    for folder in ("playbooks", "inv/dev", "inv/prod"):
        (root / folder).mkdir(parents=True)
    (root / "playbooks/site.yml").write_text("- hosts: all\n")
    nowhere = f"redis+socket://{root}/nobody-listens"
    return create_app(
        Settings(
            CELERY_BROKER_URL=nowhere,
            CELERY_RESULT_BACKEND=nowhere,
            playbook_root=root / "playbooks",
            rbac_file=root / "rbac.json",
            data_dir=root / "data",
            secret_key_file=root / "data/secret.key",
            token_file=root / "data/tokens.json",
            audit_file=root / "data/audit.log",
            max_body_bytes=MAX_BODY_BYTES,
            base_dir=root,
        )
    )


@pytest.fixture
def anybody(app: Flask) -> FlaskClient:
    """A client without a password."""
    return app.test_client()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client that sends admin's password."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = "Basic YWRtaW46cm9vdA=="
    return client


@pytest.fixture
def root(app: Flask) -> Path:
    settings: Settings = app.extensions["flansible"].settings
    return settings.base_dir


@pytest.fixture(scope="session")
def _shared_tree(tmp_path_factory: pytest.TempPathFactory) -> SharedTree:
    return SharedTree(tmp_path_factory.mktemp("tree"))


@pytest.fixture
def tree(_shared_tree: SharedTree) -> Path:
    """Inventories, playbooks and links across their borders, as tests/helpers/authorizing.py makes them."""
    return _shared_tree.unchanged()


@pytest.fixture
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing a password takes next to no time; what it costs in production, test_password_cost.py looks at."""
    monkeypatch.setattr(users, "_OUR_METHOD", CHEAP_HASHES)
    monkeypatch.setattr(
        passwords, "generate_password_hash", functools.partial(generate_password_hash, method=CHEAP_HASHES)
    )
