"""Takes a call of a webhook: its proof first, then its filters, then the launch of its template; each call is logged.

Whoever does not know the secret learns nothing: not whether there is such a webhook, nor what it would do.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import JsonValue, ValidationError

from flansible.authorization import project_rights
from flansible.definitions.kinds import TEMPLATES
from flansible.errors import Forbidden, NotAuthenticated, NotFound, RequestError, SealError, TooManyRequests
from flansible.history.definition_rows import StoredDefinition
from flansible.history.hook_call_rows import IGNORED, REFUSED, STARTED, HookCallRows, StoredHookCall
from flansible.hooks import callers, filters
from flansible.hooks.callers import Call
from flansible.identity.users import User
from flansible.models.hook_specs import WebhookSpec
from flansible.models.project_spec import ProjectSpec
from flansible.web import parsing, project_commit, template_launch
from flansible.web.context import WebContext, definitions_of
from flansible.web.task_launch import Launched, MakeEvent
from flansible.web.template_launch import TemplateLaunch

log = logging.getLogger(__name__)

KIND = "webhooks"
_KNOWN_SECONDS = 24 * 3600
# One text for a webhook that is not there and for a wrong signature.
_REFUSED = "There is no such webhook, or the call is not signed with its secret."


def find(context: WebContext, name: str, call: Call, address: str) -> tuple[StoredDefinition, WebhookSpec]:
    """Returns the webhook whose secret the caller knows. Raises NotAuthenticated, TooManyRequests, Unavailable."""
    found = definitions_of(context).find(KIND, name)
    spec = opened(context, found)
    if not callers.is_genuine(call, spec) or found is None or spec is None:
        raise _refusal(context, name, address)
    return found, spec


def _refusal(context: WebContext, name: str, address: str) -> NotAuthenticated | TooManyRequests:
    """Counts a call that is not genuine. Genuine ones are never throttled: anybody may call from a forge's address."""
    # Not the counters of logins: wrong calls must lock no user of that address out.
    who, where, throttle = f"hook {name}", f"hooks {address}", context.login_throttle
    if seconds := throttle.locked_seconds(who, where):
        message = f"Too many calls with a wrong signature. Try again in {seconds} seconds."
        return TooManyRequests(message, code="too_many_logins", retry_after_seconds=seconds)
    throttle.record_failure(who, where)
    return NotAuthenticated(_REFUSED, code="hook_refused")


def opened(context: WebContext, found: StoredDefinition | None) -> WebhookSpec | None:
    if found is None:
        return None
    try:
        return WebhookSpec.model_validate({**found.spec, **definitions_of(context).opened(found)})
    except (SealError, ValidationError) as error:
        log.error("webhooks/%s cannot be used: %s", found.name, type(error).__name__)
        return None


def of_call(context: WebContext, call: StoredHookCall) -> HookCalls:
    """Returns what starts a call that is in the log. Raises NotFound where its webhook is gone."""
    found = definitions_of(context).find(KIND, call.webhook)
    if found is None:
        raise NotFound("The webhook of this call is gone.", code="definition_not_found")
    spec = opened(context, found)
    if spec is None:
        raise NotFound("The webhook of this call cannot be used.", code="definition_not_found")
    return HookCalls(context, found, spec)


def reason_of(error: RequestError) -> str:
    """Returns a refusal as the log has it."""
    return f"{error.code}: {error.message}"[:500]


class HookCalls:
    """Judges genuine calls of one webhook."""

    def __init__(self, context: WebContext, found: StoredDefinition, spec: WebhookSpec) -> None:
        self._context = context
        self._found = found
        self._spec = spec

    @property
    def owner(self) -> str:
        """Of the webhook, as it is now."""
        return self._found.owner

    def take(self, call: Call, address: str, event: MakeEvent) -> StoredHookCall:
        """Starts the template, now or later, or not; returns what became of the call, or of the one that it repeats.

        Raises what a launch raises, and InvalidRequest for a payload that is no JSON object.
        """
        payload = parsing.parse_json_object(call.body)
        taken = self._described(call, payload, address)
        since = taken.received - _KNOWN_SECONDS * 1000
        if known := self._rows().known(taken, since):
            return known
        reason = filters.why_ignored(self._spec, taken.event, taken.ref, payload)
        if not reason and self._spec.event_commit and not taken.commit:
            reason = "the event has no commit"
        if reason:
            ignored = replace(taken, outcome=IGNORED, reason=reason)
            self._rows().add(ignored)
            return ignored
        if self._spec.debounce is not None:
            return self._rows().add_waiting(taken, taken.received + self._spec.debounce * 1000, since)
        key = f"hook {self._found.name} {taken.repetition}" if taken.repetition else None
        done = replace(taken, outcome=STARTED, task=self.launch(taken, key, event).task_id)
        self._rows().add(done)
        return done

    def launch(
        self, call: StoredHookCall, key: str | None, event: MakeEvent, *, during_freeze: bool = False
    ) -> Launched:
        """Launches the template with the values of a call. A refusal is logged, and raised."""
        try:
            wanted = TemplateLaunch(
                self._spec.template,
                self._owner(),
                self._values(call),
                trigger="hook",
                key=key,
                during_freeze=during_freeze,
            )
            return template_launch.launch(self._context, wanted, event)
        except RequestError as error:
            if not call.number:
                self._rows().add(replace(call, outcome=REFUSED, reason=reason_of(error)))
            raise

    def _values(self, call: StoredHookCall) -> dict[str, JsonValue]:
        """Returns what a call sets of the template. Raises Forbidden for a ref that the project is not run at."""
        values: dict[str, JsonValue] = {"extra_vars": json.loads(call.variables)} if call.variables != "{}" else {}
        if call.commit:
            # That its commit is in an allowed ref as well is not enough: who may push any other ref could choose one.
            template = definitions_of(self._context).find(TEMPLATES.name, self._spec.template)
            project = template.spec["request"].get("project") if template else None
            if project is not None:
                spec = ProjectSpec.model_validate(project_commit.stored(project).spec, strict=False)
                project_rights.check_pushed_ref(spec, call.ref)
            values["ref"] = call.commit
        return values

    def _owner(self) -> User:
        owner = self._context.rbac.users().get(self._found.owner)
        if owner is None:
            raise Forbidden("The owner of this webhook is not in rbac.json any more.", code="rights_lost")
        return owner

    def _described(self, call: Call, payload: Mapping[str, Any], address: str) -> StoredHookCall:
        ref = callers.ref_of(self._spec, payload)[:1000]
        return StoredHookCall(
            id=f"call_{uuid.uuid4().hex}",
            webhook=self._found.name,
            owner=self._found.owner,
            sender_id=callers.sender_id(call, self._spec),
            received=time.time_ns() // 1_000_000,
            address=address,
            event=callers.event_of(call, self._spec, payload),
            ref=ref,
            outcome=REFUSED,
            reason="",
            task=None,
            variables=json.dumps(filters.values(self._spec, payload)),
            commit=callers.commit_of(self._spec, payload) if ref and self._spec.event_commit else "",
            repetition=callers.repetition_key(call, self._spec),
        )

    def _rows(self) -> HookCallRows:
        assert self._context.hook_calls is not None  # there is a database, where the definition is
        return self._context.hook_calls
