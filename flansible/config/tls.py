"""The certificate and key of the web server: checked before anything starts, and reloaded when renewed.

`check` is for the commands that start the web server; flansible.web.gunicorn_server gets the context for each
connection from `ServerContext`.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from flansible.config import Settings
from flansible.errors import ConfigurationError, Fault


def check(settings: Settings) -> None:
    """Checks the certificate and key, if set. Raises ConfigurationError that names the faulty setting."""
    if settings.tls_certificate and settings.tls_key:
        _context(settings.tls_certificate, settings.tls_key)


class ServerContext:
    """Holds the TLS context; a renewed certificate is used from the next connection on, a broken one never.

    Reading both files for each connection, as gunicorn would, takes as long as the handshake.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises ConfigurationError."""
        self._paths = (certificate, key)
        self._stamp = self._read_stamp()
        self._context = _context(certificate, key)

    def current(self) -> ssl.SSLContext:
        stamp = self._read_stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = _context(*self._paths)
            except ConfigurationError:
                return self._context  # one of the two files was replaced, the other will be in a moment
        return self._context

    def _read_stamp(self) -> tuple[tuple[int, int], ...]:
        try:
            return tuple((status.st_mtime_ns, status.st_ino) for status in (path.stat() for path in self._paths))
        except OSError:
            return ()


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    for name, path in (("tls_certificate", certificate), ("tls_key", key)):
        _require_readable(name, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        # Without a password function OpenSSL would prompt at the terminal.
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError([_fault(error, certificate, key)]) from None
    return context


def _no_password() -> str:
    return ""


def _require_readable(name: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigurationError([Fault(str(path), name, f"cannot be read: {error.strerror or error}")]) from None


def _fault(error: Exception, certificate: Path, key: Path) -> Fault:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return Fault(str(key), "tls_key", f"is not the key of the certificate in {certificate} (tls_certificate)")
    if not _is_certificate(certificate):
        return Fault(str(certificate), "tls_certificate", "holds no certificate in PEM form that OpenSSL accepts")
    return Fault(
        str(key), "tls_key", "holds no key in PEM form, or one with a password, which a server cannot be given"
    )


def _is_certificate(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, OSError):
        return False
    return True
