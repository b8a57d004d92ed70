"""Sends a mail by SMTP with TLS, to a checked address; the certificate is for the server's name."""

from __future__ import annotations

import smtplib
import socket
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime, localtime
from typing import Literal

from flansible.errors import AddressRefused, DeliveryFailed, DeliveryRefused
from flansible.notifications.webhook_sender import CONNECT_SECONDS, cut_after
from flansible.system import addresses
from flansible.system.addresses import LookUp

TOTAL_SECONDS = 30.0


@dataclass(frozen=True)
class Mail:
    """One mail. login: user and password, if the server needs them."""

    delivery_id: str
    sender: str
    to: tuple[str, ...]
    subject: str
    text: str
    host: str
    port: int
    security: Literal["starttls", "tls"]
    login: tuple[str, str] | None = field(default=None, repr=False)
    allow_private: bool = False
    look_up: LookUp = socket.getaddrinfo


class _CheckedSMTP(smtplib.SMTP):
    """Speaks over a connection to an address that was checked; smtplib would look the name up again."""

    def __init__(self, connected: socket.socket, mail: Mail, context: ssl.SSLContext) -> None:
        self._connected = connected
        self._mail = mail
        self._context = context
        super().__init__(mail.host, mail.port, mail.sender.partition("@")[2], CONNECT_SECONDS)

    def _get_socket(self, _host: str, _port: int, _timeout: float) -> socket.socket:
        if self._mail.security == "starttls":
            return self._connected
        return self._context.wrap_socket(self._connected, server_hostname=self._mail.host)


def send(mail: Mail, total_seconds: float = TOTAL_SECONDS) -> str:
    """Sends it once; returns the server's name. Raises DeliveryFailed and DeliveryRefused."""
    try:
        checked = addresses.checked_addresses(
            mail.host, mail.port, allow_private=mail.allow_private, look_up=mail.look_up
        )
        _send(mail, checked, total_seconds)
    except AddressRefused as error:
        raise DeliveryRefused(f"{error} (allow_private)") from error
    except smtplib.SMTPResponseException as error:
        # What the server says may quote the mail; its code says whether to try again.
        kind = DeliveryRefused if error.smtp_code in (550, 553, 554) else DeliveryFailed
        raise kind(f"the server refused it with {error.smtp_code}") from error
    except smtplib.SMTPRecipientsRefused as error:
        codes = sorted({code for code, _ in error.recipients.values()})
        raise DeliveryFailed(f"the server refused all recipients with {', '.join(map(str, codes))}") from error
    except smtplib.SMTPNotSupportedError as error:
        raise DeliveryFailed("the server does not offer what is needed (STARTTLS, login)") from error
    except (smtplib.SMTPException, ssl.SSLError) as error:
        raise DeliveryFailed(f"the connection failed ({type(error).__name__})") from error
    except OSError as error:
        raise DeliveryFailed(error.strerror or "the connection failed, or there was no reply in time") from error
    return mail.host


def _send(mail: Mail, checked: list[tuple[str, int]], total_seconds: float) -> None:
    context = ssl.create_default_context()
    with addresses.dial(checked, CONNECT_SECONDS) as plain, cut_after(total_seconds, plain):
        with _CheckedSMTP(plain, mail, context) as smtp:
            if mail.security == "starttls":
                smtp.starttls(context=context)
            if mail.login is not None:
                _log_in(smtp, *mail.login)
            smtp.send_message(_message(mail), mail.sender, list(mail.to))


def _log_in(smtp: smtplib.SMTP, user: str, password: str) -> None:
    try:
        smtp.login(user, password)
    except UnicodeError as error:
        raise DeliveryFailed("smtp_user and smtp_password may have ASCII characters alone") from error


def _message(mail: Mail) -> EmailMessage:
    message = EmailMessage()
    message["From"] = mail.sender
    message["To"] = ", ".join(mail.to)
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(localtime())
    # The same for each attempt: a mail that was accepted twice is one to most readers.
    message["Message-ID"] = f"<{mail.delivery_id}@{mail.sender.partition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    # Names of files that are no UTF-8 have halves of characters, which no mail can have.
    message.set_content(mail.text.encode(errors="replace").decode())
    return message
