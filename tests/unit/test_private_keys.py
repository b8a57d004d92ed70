"""Private keys in requests: what is mended, what is encrypted, and the passphrase that belongs to it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flansible.models import AdhocRequest, private_keys
from tests.helpers.waiting import require_program

FORMS = {
    "ed25519": ("-t", "ed25519"),
    "rsa": ("-t", "rsa", "-b", "2048"),
    "PEM": ("-t", "rsa", "-b", "2048", "-m", "PEM"),
    "PKCS8": ("-t", "ecdsa", "-m", "PKCS8"),
}


def new_key(folder: Path, form: str, passphrase: str) -> str:
    program = require_program("ssh-keygen")
    path = folder / f"{form}-{bool(passphrase)}"
    subprocess.run([program, "-q", *FORMS[form], "-N", passphrase, "-f", str(path)], check=True)
    return path.read_text()


@pytest.mark.parametrize("form", FORMS)
def test_an_encrypted_key_is_seen_however_it_is_written(form: str, tmp_path: Path) -> None:
    for passphrase in ("", "pass phrase"):
        key = new_key(tmp_path, form, passphrase)
        assert private_keys.is_encrypted(private_keys.mended(key)) == bool(passphrase)
        assert private_keys.mended(key) == key


@pytest.mark.parametrize("body", ["", "%%", "YWJj", "b3BlbnNzaC1rZXktdjE", "\u2028"])
def test_what_is_no_key_is_not_encrypted(body: str) -> None:
    for text in (body, f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----"):
        assert not private_keys.is_encrypted(private_keys.mended(text))


@pytest.mark.parametrize(
    "damage",
    [
        lambda key: key.replace("\n", "\r\n"),
        lambda key: key.replace("\n", "\r"),
        lambda key: key.rstrip("\n"),
        lambda key: "\ufeff" + key.replace("\n", "\r\n"),
        lambda key: "\n \n" + key + "\n\n",
        lambda key: "".join(f"    {line}  \n" for line in key.splitlines()),
    ],
    ids=["Windows", "old Mac", "no last line end", "byte order mark", "blank lines", "indented"],
)
def test_what_a_key_suffers_as_text_is_mended(damage: object) -> None:
    lines = ("Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,18E7", "", "MIIE")
    key = "\n".join(("-----BEGIN RSA PRIVATE KEY-----", *lines, "-----END RSA PRIVATE KEY-----", ""))
    assert callable(damage)
    request = AdhocRequest.model_validate({"module": "ping", "private_key": damage(key)})
    assert request.secrets is not None and request.secrets.private_key == key
    assert request.lacks_passphrase
    assert not request.model_copy(update={"private_key_passphrase": "x"}).lacks_passphrase
