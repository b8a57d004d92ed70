"""Signs and verifies as Standard Webhooks has it (https://www.standardwebhooks.com): HMAC-SHA256 of id, time, body."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable

from flansible.models.notification_specs import secret_bytes

TOLERANCE_SECONDS = 300
_VERSION = "v1"
_TIMESTAMP = re.compile(r"[0-9]{1,15}")  # Python reads no number of thousands of digits


def signed_headers(delivery_id: str, timestamp: int, body: bytes, secrets: Iterable[str]) -> dict[str, str]:
    """Returns the headers of an attempt; a signature for each secret. Raises ValueError for no secret of this form."""
    signatures = [f"{_VERSION},{_signature(delivery_id, timestamp, body, secret)}" for secret in secrets]
    headers = {"webhook-id": delivery_id, "webhook-timestamp": str(timestamp)}
    return headers | ({"webhook-signature": " ".join(signatures)} if signatures else {})


def is_signed(delivery_id: str, timestamp: str, signatures: str, body: bytes, secrets: Iterable[str], now: int) -> bool:
    """Whether one of the signatures is of one of the secrets, and not older than five minutes."""
    if not _TIMESTAMP.fullmatch(timestamp) or abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    given = [word.partition(",")[2] for word in signatures.split(" ") if word.startswith(f"{_VERSION},")]
    expected = [_signature(delivery_id, int(timestamp), body, secret) for secret in secrets]
    # Each is compared with each, so that the time says nothing of which one was nearly right.
    found = [hmac.compare_digest(one.encode(), other.encode(errors="replace")) for one in expected for other in given]
    return any(found)


def _signature(delivery_id: str, timestamp: int, body: bytes, secret: str) -> str:
    message = f"{delivery_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(secret_bytes(secret), message, hashlib.sha256).digest()).decode()
