"""Says why a request had no reply: nobody is there, TLS is missing, or the certificate. For http_connection.py."""

from __future__ import annotations

import socket
import ssl

import httpx

from flansible.errors import ServiceUnreachable

_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"  # OpenSSL's reason; httpx keeps only the text of the error
_OTHER_NAME = "mismatch, certificate is not valid for"
_EXPIRED = "certificate has expired"
_PROBE_SECONDS = 5.0


def unreachable(url: str, error: httpx.HTTPError) -> ServiceUnreachable:
    """Returns the error to raise. url: of the service."""
    if isinstance(error, httpx.TimeoutException):
        return ServiceUnreachable(f"{url} does not answer in time")
    why = (str(error) or type(error).__name__).rstrip(".")
    if _UNTRUSTED in why:
        return ServiceUnreachable(_certificate(url, why), is_temporary=False)
    # A service that is restarted closes connections as well. Only one that speaks TLS will never answer.
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) and _is_plain(url) and _speaks_tls(url):
        secure = f"https{url.removeprefix('http')}"
        return ServiceUnreachable(f"{url} speaks TLS and closed the connection; use {secure}", is_temporary=False)
    return ServiceUnreachable(f"{url} does not answer: {why}; is the service up?")


def _certificate(url: str, why: str) -> str:
    if _OTHER_NAME in why:
        return f"{url} has a certificate for another host; use a host name or address in the URL that it is made for"
    if _EXPIRED in why:
        return f"{url} has a certificate that has expired, or this machine's clock is wrong"
    advice = "name the certificate that signed it (ca_file, --api-ca-file, FLANSIBLE_CA_FILE)"
    return f"{url} has a certificate that is not trusted here; {advice}"


def _is_plain(url: str) -> bool:
    return httpx.URL(url).scheme == "http"


def _speaks_tls(url: str) -> bool:
    """Whether a TLS handshake succeeds at the URL's port. Nothing is sent, so the certificate is not verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    parsed = httpx.URL(url)
    try:
        with (
            socket.create_connection((parsed.host, parsed.port or 80), _PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=parsed.host),
        ):
            return True
    except (OSError, ValueError):
        return False
