"""What the resources of one web process share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import current_app

from flansible.config import Settings
from flansible.rbac import RbacFile
from flansible.sealing import Sealer
from flansible.store import Store


@dataclass(frozen=True)
class Services:
    settings: Settings
    rbac: RbacFile
    store: Store
    sealer: Sealer


def services() -> Services:
    """Those of the app that handles this request."""
    return cast(Services, current_app.extensions["flansible"])
