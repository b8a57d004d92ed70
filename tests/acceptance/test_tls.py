"""`flansible up` with a certificate: everything that works without TLS works with it, and nothing works without."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flansible.client import Client
from flansible.errors import ServiceUnreachable
from flansible.web.middleware import security_headers
from tests.helpers import certificates
from tests.helpers.certificates import Pair
from tests.helpers.services import ADMIN, Service, flansible_environ, start_service
from tests.helpers.waiting import require_program


@pytest.fixture(scope="module")
def trusted(root: Path) -> Pair:
    return certificates.authority(root)


@pytest.fixture(scope="module")
def service(root: Path, trusted: Pair) -> Iterator[Service]:
    certificates.signed(root, trusted)
    running = start_service(root, "tls_certificate = server.pem\ntls_key = server.key\ntrusted_proxies = 127.0.0.1\n")
    yield running
    assert running.stop() < 10


@pytest.fixture(scope="module")
def client(service: Service, trusted: Pair) -> Iterator[Client]:
    with Client(service.url, *ADMIN, ca_file=str(trusted.certificate)) as found:
        yield found


def curl(service: Service, trusted: Pair, path: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [require_program("curl"), "-sS", "--max-time", "60", "--cacert", str(trusted.certificate), *more]
    return subprocess.run([*command, f"{service.url}{path}"], capture_output=True, text=True, timeout=90)


def test_curl_takes_it_for_what_it_says_it_is(service: Service, trusted: Pair) -> None:
    assert service.url.startswith("https://127.0.0.1:")
    reply = curl(service, trusted, "/api/health", "-i")
    assert reply.returncode == 0, reply.stderr
    head = reply.stdout.partition("\n\n")[0]
    assert " 200 " in head.splitlines()[0] and "Strict-Transport-Security: max-age=31536000" in head


def test_old_versions_of_tls_and_plain_http_are_refused(service: Service, trusted: Pair) -> None:
    old = ("--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0")
    assert curl(service, trusted, "/api/health", *old).returncode == 35
    assert curl(service, trusted, "/api/health", "--tlsv1.2", "--tls-max", "1.2").returncode == 0
    with pytest.raises(httpx.TransportError):
        httpx.get(service.url.replace("https:", "http:") + "/api/health")
    with Client(service.url.replace("https:", "http:"), *ADMIN) as plain:
        with pytest.raises(ServiceUnreachable, match=f"speaks TLS .* use {service.url}$"):
            plain.adhoc("ping")


def test_a_run_is_followed_live_by_output_and_by_events(service: Service, trusted: Pair, client: Client) -> None:
    task_id = client.adhoc("shell", "for n in 1 2 3; do echo line $n; sleep 0.2; done")
    assert b"line 1\nline 2\nline 3\n" in b"".join(client.follow(task_id))
    login = ("-N", "-u", ":".join(ADMIN))
    followed = curl(service, trusted, f"/api/ansibletaskoutput/{task_id}?follow=true", *login)
    assert "line 3" in followed.stdout
    stream = curl(
        service, trusted, f"/api/ansibletaskevents/{task_id}", *login, "-i", "-H", "Accept: text/event-stream"
    )
    assert "event: final" in stream.stdout
    for name, value in security_headers.default_headers(is_tls=True):
        assert f"{name}: {value}" in stream.stdout
    assert client.wait(task_id)["Status"] == "SUCCESS"


def test_what_gunicorn_refuses_by_itself_is_said_over_tls(service: Service, trusted: Pair) -> None:
    context = ssl.create_default_context(cafile=str(trusted.certificate))
    address = ("127.0.0.1", httpx.URL(service.url).port or 0)
    with (
        socket.create_connection(address, 20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as line,
    ):
        line.sendall(b"nonsense\r\n\r\n")
        got = b""
        while more := line.recv(65536):
            got += more
    assert got.startswith(b"HTTP/1.1 400 ") and b"Strict-Transport-Security" in got and b'"invalid_request"' in got


def test_the_commands_find_the_certificate_by_option_variable_and_file(service: Service, trusted: Pair) -> None:
    command = ["flansible", "tasks", "--url", service.url, "--api-user", ADMIN[0]]
    environ = service.environ | {"FLANSIBLE_PASSWORD": ADMIN[1], "HOME": str(service.root)}
    kept = service.root / ".config/flansible/client.ini"

    def run(*more: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *more], env=environ | variables, capture_output=True, text=True, timeout=60, cwd=service.root
        )

    refused = run()
    assert refused.returncode == 1 and "--api-ca-file" in refused.stderr
    assert run("--api-ca-file", str(trusted.certificate)).returncode == 0
    assert run(FLANSIBLE_CA_FILE=str(trusted.certificate)).returncode == 0
    kept.parent.mkdir(parents=True)
    kept.touch(0o600)
    kept.write_text(f"[client]\nca_file = {trusted.certificate}\n")
    assert run().returncode == 0
    ping = ["flansible", "adhoc", "localhost", "-m", "ping", *command[2:], "--api-ca-file", str(trusted.certificate)]
    ran = subprocess.run(ping, env=environ, capture_output=True, text=True, timeout=90, cwd=service.root)
    assert ran.returncode == 0 and "pong" in ran.stdout


def test_a_proxy_that_is_listed_names_the_host_others_know(service: Service, trusted: Pair) -> None:
    told = ("-H", "X-Forwarded-Host: flansible.example.org", "-H", "X-Forwarded-For: 203.0.113.7, garbage")
    assert '"basePath":"https://flansible.example.org"' in curl(service, trusted, "/api/spec", *told).stdout


def test_a_client_that_was_told_of_no_authority_goes_no_further(service: Service) -> None:
    with Client(service.url, *ADMIN) as found, pytest.raises(ServiceUnreachable, match="not trusted here"):
        found.tasks()


def test_a_certificate_renewed_under_the_service_is_used(service: Service, trusted: Pair, root: Path) -> None:
    new = certificates.signed(root, trusted, "renewed")
    os.replace(new.key, root / "server.key")
    os.replace(new.certificate, root / "server.pem")
    shown = curl(service, trusted, "/api/health", "-v").stderr
    assert "CN=renewed" in shown.replace("CN = ", "CN="), shown


@pytest.mark.by_day(1)
@pytest.mark.parametrize("command", ["up", "web"])
def test_a_key_of_another_certificate_stops_the_start(root: Path, trusted: Pair, command: str) -> None:
    (root / "wrong.ini").write_text("[Default]\ntls_certificate = server.pem\ntls_key = authority.key\n")
    (root / "authority.key").chmod(0o600)
    ended = subprocess.run(
        ["flansible", command, "--config", "wrong.ini"],
        env=flansible_environ(),
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2 and "tls_key: is not the key of the certificate" in ended.stderr, ended.stderr
