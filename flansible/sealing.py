"""Encrypts the secrets of a run while they wait in the store, with a key outside Redis.

The web process seals, the worker opens; both read `secret_key_file`. Fernet (AES-128-CBC with HMAC-SHA-256) comes with
the cryptography package, which Ansible needs as well.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from flansible.errors import ConfigurationError, Fault, SealError
from flansible.models import Secrets
from flansible.system import atomic_files


class Sealer:
    """Seals and opens secrets with the key in a file."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file

    def seal(self, secrets: Secrets) -> bytes:
        """Encrypts secrets. Raises SealError when the key cannot be read or created."""
        return self.encrypt(secrets.model_dump_json(exclude_defaults=True).encode())

    def open(self, sealed: bytes) -> Secrets:
        """Decrypts secrets. Raises SealError when they were sealed with another key."""
        return Secrets.model_validate_json(self.decrypt(sealed))

    def encrypt(self, data: bytes) -> bytes:
        """Encrypts any bytes. Raises SealError."""
        return self._fernet().encrypt(data)

    def decrypt(self, sealed: bytes) -> bytes:
        """Decrypts what `encrypt` returned. Raises SealError when it was sealed with another key."""
        try:
            return self._fernet().decrypt(sealed)
        except InvalidToken:
            message = "the secrets were sealed with another key; web and worker need the same secret_key_file"
            raise SealError(message) from None

    def digest(self, data: bytes) -> str:
        """Returns a digest that only shows whether two contents are the same. Raises SealError.

        Keyed: from the plain hash of a body a short password in it could be guessed.
        """
        return hmac.new(self._key(), data, hashlib.sha256).hexdigest()

    def _fernet(self) -> Fernet:
        try:
            return Fernet(self._key())
        except ValueError as error:
            raise SealError(f"secrets cannot be sealed: {error}") from error

    def _key(self) -> bytes:
        try:
            return read_or_make_key(self._key_file)
        except ConfigurationError as error:
            raise SealError(f"secrets cannot be sealed: {error}") from error


def read_or_make_key(path: Path) -> bytes:
    """Reads the key in `path`, and creates it if necessary; a second process reads the key of the first."""
    try:
        if not path.exists():
            atomic_files.make_private_folder(path.parent)
            with atomic_files.replacing(path, keep_existing=True) as temporary, open(temporary, "wb") as file:
                atomic_files.chown_to_folder_owner(file.fileno(), path)
                file.write(Fernet.generate_key())
        return path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError([Fault(str(path), "secret_key_file", f"cannot be read or made: {error}")]) from error
