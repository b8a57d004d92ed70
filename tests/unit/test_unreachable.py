"""What the client says, and how long it tries, when a service cannot answer it: http to a TLS port, certificates."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from flansible.client import Client, terminal
from flansible.client.profile import Profile
from flansible.errors import ServiceRefused, ServiceUnreachable
from tests.helpers import certificates

HOST = "127.0.0.2"  # of this machine as well, and in no certificate of the tests
MUCH_LESS_THAN_PATIENCE = 60.0
ACCEPTED = b'HTTP/1.1 202 Accepted\r\nContent-Length: 18\r\nConnection: close\r\n\r\n{"task_id": "abc"}'


@contextlib.contextmanager
def hanging_up(
    context: ssl.SSLContext | None, on_request: Callable[[], None] = lambda: None, first_reply: bytes = b""
) -> Iterator[int]:
    """The port of a server that closes every connection; with a context, after the handshake of TLS."""
    replies = [first_reply]
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                with plain:
                    plain.settimeout(10)
                    with contextlib.suppress(OSError):
                        if context is None:
                            plain.recv(65536)
                            on_request()
                            plain.sendall(replies.pop() if replies else b"")
                        else:
                            context.wrap_socket(plain, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def terminate_at(request: int) -> Callable[[], None]:
    """Sends SIGTERM to this process at the request of this number; one that looks for TLS counts."""
    numbers = itertools.count(1)

    def on_request() -> None:
        if next(numbers) == request:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_request


@dataclass(frozen=True)
class Tls:
    port: int
    authority: str


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    folder = tmp_path_factory.mktemp("tls")
    authority = certificates.authority(folder)
    server = certificates.signed(folder, authority)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    with hanging_up(context) as port:
        yield Tls(port, str(authority.certificate))


def test_http_to_a_port_of_tls_is_not_tried_again_and_the_url_is_named(tls: Tls) -> None:
    began = time.monotonic()
    with Client(f"http://{HOST}:{tls.port}", "u", "p") as client:
        for ask in (lambda: client.adhoc("ping"), lambda: client.wait("x"), lambda: list(client.follow("x"))):
            with pytest.raises(ServiceUnreachable, match=f"speaks TLS.*; use https://{HOST}:{tls.port}$"):
                ask()
    assert time.monotonic() - began < MUCH_LESS_THAN_PATIENCE


def test_a_service_that_is_restarted_is_tried_again_and_its_message_has_one_full_stop() -> None:
    with hanging_up(None) as port, Client(f"http://{HOST}:{port}", "u", "p", patience_seconds=0.3) as client:
        tried: list[float] = []
        with pytest.raises(ServiceUnreachable, match=r"does not answer: .*[^.]; is the service up\?") as caught:
            client.submit("adhoc", {}, before_retry=lambda: tried.append(time.monotonic()))
    assert tried and caught.value.is_temporary


def test_a_certificate_for_another_host_is_told_from_one_that_is_not_trusted(tls: Tls) -> None:
    for ca_file, says in (
        (None, "not trusted here; name the certificate that signed it"),
        (tls.authority, "certificate for another host; use a host name or address in the URL"),
    ):
        with Client(f"https://{HOST}:{tls.port}", "u", "p", ca_file=ca_file) as client:
            with pytest.raises(ServiceUnreachable, match=says) as caught:
                client.wait("x")
        assert not caught.value.is_temporary


# After each attempt a request looks for TLS.
@pytest.mark.parametrize("at", [1, 3], ids=["at the first attempt", "at a retry"])
def test_a_signal_ends_a_submission_that_is_sent_again(at: int, capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    with hanging_up(None, terminate_at(at)) as port:
        assert terminal.run(Profile(f"http://{HOST}:{port}", "u", "p"), "adhoc", {}) == terminal.EXIT_LEFT
    assert time.monotonic() - began < MUCH_LESS_THAN_PATIENCE
    assert "the task may be queued: flansible tasks shows it then" in capfd.readouterr().err


def test_a_signal_ends_a_command_whose_service_went_away_while_it_ran(capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    with hanging_up(None, terminate_at(6), first_reply=ACCEPTED) as port:
        assert terminal.run(Profile(f"http://{HOST}:{port}", "u", "p"), "adhoc", {}) == terminal.EXIT_LEFT
    assert time.monotonic() - began < MUCH_LESS_THAN_PATIENCE
    said = capfd.readouterr().err
    assert "task abc was not canceled: " in said and "flansible status abc shows the state" in said


def test_a_locked_login_ends_a_command_as_a_refusal_does() -> None:
    locked = ServiceRefused("no", status=429, code="too_many_logins", errors=[], retry_after_seconds=287)
    assert (locked.exit_code, locked.is_temporary) == (5, True)
