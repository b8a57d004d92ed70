"""What the resources of one web process share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import current_app

from flansible.audit.log import Audit
from flansible.config import Settings
from flansible.identity.custom_login import LoginFunction
from flansible.identity.tokens import TokenFile
from flansible.identity.users import RbacFile
from flansible.sealing import Sealer
from flansible.store import Store
from flansible.web.audit_throttle import AuditThrottle
from flansible.web.login_throttle import LoginThrottle


@dataclass(frozen=True)
class Services:
    settings: Settings
    rbac: RbacFile
    store: Store
    sealer: Sealer
    tokens: TokenFile
    login_function: LoginFunction | None
    doors: LoginThrottle
    audit: Audit
    thrift: AuditThrottle


def services() -> Services:
    """Those of the app that handles this request."""
    return cast(Services, current_app.extensions["flansible"])
