"""The objects that the request handlers of one web process share: settings, users, store, throttles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, cast

from flask import current_app

from flansible.audit.log import Audit
from flansible.audit.throttle import AuditThrottle
from flansible.config import Settings
from flansible.definitions.definition_store import Definitions
from flansible.definitions.stored_credentials import Credentials
from flansible.errors import Unavailable
from flansible.history.delivery_rows import DeliveryRows
from flansible.history.hook_call_rows import HookCallRows
from flansible.history.merged_records import Records
from flansible.history.schedule_rows import ScheduleRows
from flansible.identity.custom_login import LoginFunction
from flansible.identity.tokens import TokenFile
from flansible.identity.users import RbacFile
from flansible.sealing import Sealer
from flansible.store import LoginThrottle
from flansible.web.failed_submissions import FailedSubmissions
from flansible.web.request_counts import RequestCounts

Part = TypeVar("Part")


@dataclass(frozen=True)
class WebContext:
    """What `create_app` builds once and every request handler may use."""

    settings: Settings
    rbac: RbacFile
    store: Records
    failed_submissions: FailedSubmissions
    sealer: Sealer
    tokens: TokenFile
    login_function: LoginFunction | None
    login_throttle: LoginThrottle
    audit: Audit
    audit_throttle: AuditThrottle
    definitions: Definitions | None
    request_counts: RequestCounts | None
    schedules: ScheduleRows | None
    credentials: Credentials | None
    deliveries: DeliveryRows | None
    hook_calls: HookCallRows | None


def definitions_of(context: WebContext) -> Definitions:
    """Returns the definitions of the service. Raises Unavailable where it has no database."""
    return from_database(context.definitions, "definitions")


def from_database(found: Part | None, what: str) -> Part:
    """Returns a part of the service that needs a database. what: what for. Raises Unavailable where there is none."""
    if found is None:
        message = f"This service has no database for {what}. An operator has to set DATABASE_URL."
        raise Unavailable(message, code="no_database")
    return found


def web_context() -> WebContext:
    """Returns the context of the app that handles this request."""
    return cast(WebContext, current_app.extensions["flansible"])
