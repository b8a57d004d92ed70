"""What the resources of one web process share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import current_app

from flansible.audit import Audit
from flansible.config import Settings
from flansible.login_function import LoginFunction
from flansible.rbac import RbacFile
from flansible.sealing import Sealer
from flansible.store import Store
from flansible.tokens import TokenFile
from flansible.web.doors import Doors
from flansible.web.thrift import Thrift


@dataclass(frozen=True)
class Services:
    settings: Settings
    rbac: RbacFile
    store: Store
    sealer: Sealer
    tokens: TokenFile
    login_function: LoginFunction | None
    doors: Doors
    audit: Audit
    thrift: Thrift


def services() -> Services:
    """Those of the app that handles this request."""
    return cast(Services, current_app.extensions["flansible"])
