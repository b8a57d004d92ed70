"""The web server's certificate and key: what is wrong with them is found before anything starts."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flansible import config
from flansible.client import Client
from flansible.config import Settings, tls
from flansible.errors import ConfigurationError, OptionError
from flansible.launcher import tls_probe
from tests.helpers import certificates
from tests.helpers.certificates import Pair

MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return certificates.authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(trusted: Pair) -> Pair:
    return certificates.signed(trusted.key.parent, trusted)


def load(tmp_path: Path, *lines: str) -> Settings:
    path = tmp_path / "config.ini"
    path.write_text("\n".join(("[Default]", *lines, "")))
    return config.load(str(path), {})


def complaint(settings: Settings) -> tuple[str, str]:
    with pytest.raises(ConfigurationError) as raised:
        tls.check(settings)
    [fault] = raised.value.faults
    return fault.key, fault.message


@pytest.mark.parametrize("line", ["tls_key = x", "tls_certificate = x"])
def test_one_without_the_other_stops_the_start(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path, line, "CELERY_BROKER_URL = redis://:MARKER@localhost/0")
    message = "tls_certificate and tls_key belong together: set both or neither"
    assert str(raised.value) == f"{tmp_path / 'config.ini'}: {line.partition(' ')[0]}: {message}"


def test_one_without_the_other_names_the_variable_it_was_read_from(tmp_path: Path) -> None:
    (tmp_path / "config.ini").write_text("[Default]\n")
    with pytest.raises(ConfigurationError, match="^FLANSIBLE_TLS_KEY: tls_key: "):
        config.load(str(tmp_path / "config.ini"), {"FLANSIBLE_TLS_KEY": "x"})


def test_both_count_from_the_folder_of_the_configuration_and_neither_is_no_tls(tmp_path: Path) -> None:
    settings = load(tmp_path, "tls_certificate = a.pem", "tls_key = b.key")
    assert (settings.tls_certificate, settings.tls_key) == (tmp_path / "a.pem", tmp_path / "b.key")
    assert settings.is_tls and settings.url == "https://127.0.0.1:3000"
    plain = load(tmp_path, "tls_certificate =", "tls_key =")
    assert not plain.is_tls and plain.url == "http://127.0.0.1:3000"
    tls.check(plain)


def test_what_cannot_be_used_is_named(make_settings: MakeSettings, pair: Pair, trusted: Pair, tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("no PEM\n")
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "ec", "-in", str(pair.key), "-aes128", "-passout", "pass:x", "-out", str(locked)],
        check=True,
        capture_output=True,
    )

    def of(certificate: Path, key: Path) -> tuple[str, str]:
        return complaint(make_settings(tls_certificate=certificate, tls_key=key))

    assert of(tmp_path / "none", pair.key) == ("tls_certificate", "cannot be read: No such file or directory")
    assert of(pair.certificate, tmp_path / "none")[0] == "tls_key"
    assert of(rubbish, pair.key)[0] == "tls_certificate"
    assert of(pair.certificate, rubbish)[0] == "tls_key"
    assert of(pair.certificate, locked)[0] == "tls_key" and "password" in of(pair.certificate, locked)[1]
    assert "is not the key of the certificate" in of(pair.certificate, trusted.key)[1]
    tls.check(make_settings(tls_certificate=pair.certificate, tls_key=pair.key))


def test_a_renewed_certificate_counts_at_once_and_a_broken_one_never(trusted: Pair, tmp_path: Path) -> None:
    first = certificates.signed(tmp_path, trusted)
    server = tls.ServerContext(first.certificate, first.key)
    before = server.current()
    assert server.current() is before
    second = certificates.signed(tmp_path, trusted, "second")
    os.replace(second.certificate, first.certificate)
    assert server.current() is before, "its key is not there yet"
    os.replace(second.key, first.key)
    renewed = server.current()
    assert renewed is not before
    first.key.unlink()
    assert server.current() is renewed
    assert renewed.minimum_version is ssl.TLSVersion.TLSv1_2


def test_the_probe_speaks_to_its_own_server_whatever_its_certificate_says(pair: Pair) -> None:
    ours, theirs = socket.socketpair()
    context = tls.ServerContext(pair.certificate, pair.key).current()

    def serve() -> None:
        with context.wrap_socket(ours, server_side=True) as connection:
            connection.sendall(connection.recv(10))

    thread = threading.Thread(target=serve)
    thread.start()
    with tls_probe.wrap_tls(theirs) as connection:
        connection.sendall(b"hello")
        assert connection.recv(10) == b"hello"
    thread.join()


def test_a_file_without_certificates_is_refused_by_the_client(tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("no PEM\n")
    for path in (rubbish, tmp_path / "none"):
        with pytest.raises(OptionError, match="cannot be used"):
            Client("https://127.0.0.1:1", "a", "b", ca_file=str(path))
    Client("http://127.0.0.1:1", "a", "b", ca_file=str(rubbish)).close()  # nothing to verify
