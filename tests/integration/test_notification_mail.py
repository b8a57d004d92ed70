"""Mails by a real SMTP server with TLS; what is not encrypted or not certified gets none."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

from flansible.errors import DeliveryFailed, DeliveryRefused
from flansible.notifications import apprise_sender, mail_sender
from flansible.notifications.mail_sender import Mail
from tests.helpers import certificates
from tests.helpers.certificates import Pair
from tests.helpers.ports import free_port

MAIL = Mail(
    delivery_id="msg_1",
    sender="flansible@example.org",
    to=("ops@example.org", "lee@example.org"),
    subject="Flansible: site.yml failed",
    text="State: failed\nÄ\n",
    host="127.0.0.1",
    port=0,
    security="starttls",
    allow_private=True,
)


class Mailbox:
    """What the server has accepted."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.refuses = ""

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:
        if self.refuses:
            return self.refuses
        self.envelopes.append(envelope)
        return "250 accepted"

    def message(self) -> Message:
        [envelope] = self.envelopes
        assert isinstance(envelope.content, bytes)
        return message_from_bytes(envelope.content)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return certificates.authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def box() -> Mailbox:
    return Mailbox()


Start = Callable[..., int]


@pytest.fixture
def start(box: Mailbox, authority: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a server and returns its port; its certificate is trusted by this process."""
    pair = certificates.signed(tmp_path, authority)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    started: list[Controller] = []

    def authenticate(*arguments: Any) -> AuthResult:
        login = arguments[-1]
        is_right = isinstance(login, LoginPassword) and (login.login, login.password) == (b"user", b"pass word")
        return AuthResult(success=is_right)

    def run(kind: str = "starttls", *, needs_login: bool = False) -> int:
        port = free_port()

        class Server(Controller):
            def factory(self) -> SMTP:
                more: dict[str, Any] = {"require_starttls": True, "tls_context": context} if kind == "starttls" else {}
                if needs_login:
                    more |= {"authenticator": authenticate, "auth_required": True}
                return SMTP(box, **more)

        options: dict[str, Any] = {"ssl_context": context} if kind == "tls" else {}
        server = Server(box, hostname="127.0.0.1", port=port, **options)
        server.start()
        started.append(server)
        return port

    yield run
    for server in started:
        server.stop()


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_mail_arrives_over_tls(start: Start, box: Mailbox, security: Any) -> None:
    assert mail_sender.send(replace(MAIL, port=start(security), security=security)) == "127.0.0.1"
    [envelope] = box.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("flansible@example.org", ["ops@example.org", "lee@example.org"])
    found = box.message()
    assert found["Subject"] == "Flansible: site.yml failed" and found["Message-ID"] == "<msg_1@example.org>"
    payload = found.get_payload(decode=True)
    assert isinstance(payload, bytes) and payload.decode().splitlines() == ["State: failed", "Ä"]


def test_a_login_that_is_right_and_one_that_is_wrong(start: Start, box: Mailbox) -> None:
    port = start(needs_login=True)
    mail_sender.send(replace(MAIL, port=port, login=("user", "pass word")))
    assert len(box.envelopes) == 1
    with pytest.raises(DeliveryFailed, match="535|Disconnected"):
        mail_sender.send(replace(MAIL, port=port, login=("user", "wrong")))


def test_a_login_that_smtp_cannot_send_is_a_failed_delivery(start: Start, box: Mailbox) -> None:
    with pytest.raises(DeliveryFailed, match="smtp_password may have ASCII"):
        mail_sender.send(replace(MAIL, port=start(needs_login=True), login=("user", "pässword")))
    assert box.envelopes == []


@pytest.mark.parametrize("host", ["a..b", f"{'a' * 64}.example.org"])
def test_what_is_no_name_of_a_host_is_a_failed_delivery(host: str) -> None:
    with pytest.raises(DeliveryFailed):
        mail_sender.send(replace(MAIL, host=host))


def test_a_mail_about_a_file_whose_name_is_no_utf_8_arrives(start: Start, box: Mailbox) -> None:
    mail_sender.send(replace(MAIL, port=start(), subject="b\udcff.yml failed", text="Task: b\udcff.yml\n"))
    payload = box.message().get_payload(decode=True)
    assert isinstance(payload, bytes) and payload.decode().strip() == "Task: b?.yml"


def test_a_server_without_starttls_gets_neither_mail_nor_password(start: Start, box: Mailbox) -> None:
    with pytest.raises(DeliveryFailed, match="STARTTLS"):
        mail_sender.send(replace(MAIL, port=start("plain"), login=("user", "pass word")))
    assert box.envelopes == []


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_that_is_not_trusted_is_refused(
    start: Start, box: Mailbox, security: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = start(security)
    (tmp_path / "other").mkdir()
    other = certificates.authority(tmp_path / "other")
    monkeypatch.setenv("SSL_CERT_FILE", str(other.certificate))
    with pytest.raises(DeliveryFailed, match="SSLCertVerificationError"):
        mail_sender.send(replace(MAIL, port=port, security=security))
    assert box.envelopes == []


def test_the_server_s_codes_say_whether_to_try_again(start: Start, box: Mailbox) -> None:
    port = start()
    box.refuses = "451 later"
    with pytest.raises(DeliveryFailed, match="451") as later:
        mail_sender.send(replace(MAIL, port=port))
    assert not isinstance(later.value, DeliveryRefused)
    box.refuses = "554 never"
    with pytest.raises(DeliveryRefused, match="554"):
        mail_sender.send(replace(MAIL, port=port))


def test_an_address_of_this_machine_is_refused_unless_it_is_allowed(start: Start, box: Mailbox) -> None:
    with pytest.raises(DeliveryRefused, match="allow_private"):
        mail_sender.send(replace(MAIL, port=start(), allow_private=False))


def test_a_server_that_says_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_sender, "CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(DeliveryFailed):
        mail_sender.send(replace(MAIL, port=listener.getsockname()[1]))


@pytest.mark.parametrize("url", ["json://127.0.0.1/", "mailtos://x", "exec://x", ""])
def test_apprise_takes_services_that_have_one_host_alone(url: str) -> None:
    with pytest.raises(DeliveryRefused, match="scheme"):
        apprise_sender.send(url, "title", "text")


def test_without_apprise_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(DeliveryFailed, match=r"pip install 'flansible\[apprise\]'"):
        apprise_sender.send("slack://a/b/c", "title", "text")
