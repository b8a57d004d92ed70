"""Sends by Apprise, in a process of its own that may be ended: it dials by itself, and is large.

Apprise is an extra (`pip install 'flansible[apprise]'`). The URL has the service's password, so it goes by standard
input. Only schemes of services that have one host are taken.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

from flansible.errors import DeliveryFailed, DeliveryRefused
from flansible.models.notification_specs import APPRISE_SCHEMES

TOTAL_SECONDS = 60.0
_SENDS = """
import json, logging, sys
logging.disable(logging.CRITICAL)
import apprise
order = json.load(sys.stdin)
# As one URL: `add` would split a text into several, and only the first one's scheme was checked.
service = apprise.Apprise.instantiate(order["url"])
if service is None:
    sys.exit(3)
found = apprise.Apprise()
found.add(service)
sys.exit(0 if found.notify(title=order["title"], body=order["text"]) else 1)
"""
_NO_SERVICE = 3


def send(url: str, title: str, text: str, total_seconds: float = TOTAL_SECONDS) -> str:
    """Sends it once; returns the service. Raises DeliveryFailed and DeliveryRefused."""
    scheme = url.partition("://")[0].lower()
    if scheme not in APPRISE_SCHEMES:
        raise DeliveryRefused("apprise_url has a scheme that is not allowed")
    if importlib.util.find_spec("apprise") is None:
        raise DeliveryFailed("Apprise is not installed: pip install 'flansible[apprise]'")
    order = json.dumps({"url": url, "title": title, "text": text}).encode()
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-c", _SENDS], input=order, capture_output=True, timeout=total_seconds
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeliveryFailed(f"Apprise did not end in time ({type(error).__name__})") from error
    if ended.returncode == _NO_SERVICE:
        raise DeliveryRefused("Apprise does not take this apprise_url")
    if ended.returncode != 0:
        raise DeliveryFailed("the service did not accept it")
    return scheme
