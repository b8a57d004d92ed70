"""A private key that signs as ssh does (RFC 4253, RFC 8332, RFC 5656, RFC 8709). Used by key_agent.py."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

_RSA_SHA256, _RSA_SHA512 = 2, 4  # flags of the agent protocol
_CURVE_HASHES: dict[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}


@dataclass(frozen=True)
class SigningKey:
    """blob: the public key as ssh sends it; public_line: the same as a line of authorized_keys."""

    blob: bytes
    public_line: str
    _key: Ed25519PrivateKey | RSAPrivateKey | EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError, without the key, for a text that is no key without a passphrase, or of no such kind."""
        data = text.encode()
        load = (
            serialization.load_ssh_private_key
            if b"BEGIN OPENSSH PRIVATE KEY" in data
            else serialization.load_pem_private_key
        )
        try:
            key = load(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("it is damaged, or of a kind that is not supported") from None
        if not isinstance(key, Ed25519PrivateKey | RSAPrivateKey | EllipticCurvePrivateKey):
            raise ValueError("it is of a kind that is not supported: use ed25519, ecdsa or rsa")
        line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return cls(base64.b64decode(line.split()[1]), line.decode(), key)

    def sign(self, data: bytes, flags: int) -> bytes:
        """Returns a signature, with its algorithm before it. Raises ValueError for a kind that this key has not."""
        if isinstance(self._key, Ed25519PrivateKey):
            return string(b"ssh-ed25519") + string(self._key.sign(data))
        if isinstance(self._key, RSAPrivateKey):
            name, digest = _rsa_algorithm(flags)
            return string(name) + string(self._key.sign(data, padding.PKCS1v15(), digest))
        curve = self._key.curve
        if curve.key_size not in _CURVE_HASHES:
            raise ValueError("an unknown curve")
        r, s = decode_dss_signature(self._key.sign(data, ECDSA(_CURVE_HASHES[curve.key_size])))
        name, _ = read_string(self.blob, 0)
        return string(name) + string(_number(r) + _number(s))


def _rsa_algorithm(flags: int) -> tuple[bytes, hashes.HashAlgorithm]:
    if flags & _RSA_SHA512:
        return b"rsa-sha2-512", hashes.SHA512()
    if flags & _RSA_SHA256:
        return b"rsa-sha2-256", hashes.SHA256()
    # What servers before OpenSSH 7.2 know; ssh itself offers it only where a configuration allows it.
    return b"ssh-rsa", hashes.SHA1()  # nosec B303


def string(data: bytes) -> bytes:
    """Returns a string as the protocol has it: its length before it."""
    return struct.pack(">I", len(data)) + data


def read_string(data: bytes, position: int) -> tuple[bytes, int]:
    """Returns the string at this position, and the position after it. Raises ValueError when it is cut off."""
    if position + 4 > len(data):
        raise ValueError("a string is cut off")
    (length,) = struct.unpack_from(">I", data, position)
    end = position + 4 + length
    if end > len(data):
        raise ValueError("a string is cut off")
    return data[position + 4 : end], end


def _number(value: int) -> bytes:
    """Returns a positive number as the protocol has it."""
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big"))
