"""The guards of templates: a limit that limits, the number of hosts, and of runs at the same time.

Hosts are found by a preview: Ansible reads the inventory as the run would. What cannot be found is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import JsonValue

from flansible.authorization import launch_values, preview_request
from flansible.errors import FieldError, Forbidden, InvalidRequest, NotFound, Unavailable
from flansible.identity.users import User
from flansible.models import AuthorizedRun, RetryPlan, RunOptions, TaskOptions
from flansible.models.template_specs import TemplateSpec
from flansible.web import task_launch
from flansible.web.context import WebContext
from flansible.web.preview_run import run_preview

_EVERY = frozenset({"all", "*"})
_IS_PATTERN = re.compile(r"[*?\[\]~!&:,;]")


def check(context: WebContext, spec: TemplateSpec, run: AuthorizedRun, body: TaskOptions, rights: User) -> None:
    """Raises InvalidRequest or Forbidden for a launch that the guards refuse, Unavailable if its hosts are unknown."""
    if not isinstance(body, RunOptions) or not (spec.require_limit or spec.max_hosts):
        return
    is_retry = run.origin.retry_of is not None
    if spec.require_limit and not is_retry:
        _check_named(body.limit)
    hosts = _hosts(run)
    if spec.require_limit and not is_retry:
        _check_selects_less(context, run, body, rights, hosts)
    if spec.max_hosts is not None and len(hosts) > spec.max_hosts:
        message = f"It would run on {len(hosts)} hosts; this template allows {spec.max_hosts} (max_hosts)."
        raise Forbidden(message, code="too_many_hosts", errors=[FieldError("limit", f"selects {len(hosts)} hosts")])


def with_slot(context: WebContext, name: str, spec: TemplateSpec, run: AuthorizedRun) -> AuthorizedRun:
    """Returns the run with one of the `at_most` locks of its template: of those that fewest tasks hold or wait for, the
    next one. No request can name such a lock: it has a null byte.
    """
    if spec.at_most is None:
        return run
    first = context.store.count_launch(name)
    numbers = [(first + number) % spec.at_most for number in range(spec.at_most)]
    loads = context.store.lock_loads([f"\0template:{name}:{number}" for number in numbers])
    return run.model_copy(update={"locks": (*run.locks, min(loads, key=lambda lock: loads[lock]))})


def with_retry(spec: TemplateSpec, run: AuthorizedRun, values: Mapping[str, JsonValue], attempt: int) -> AuthorizedRun:
    """Returns the run with what is to be done when hosts of it fail. attempt: number of retries before it."""
    if spec.retry is None or attempt >= spec.retry.times:
        return run
    plan = RetryPlan(
        hosts=spec.retry.hosts, delay_seconds=spec.retry.delay_seconds, attempt=attempt, values=dict(values)
    )
    return run.model_copy(update={"retry": plan})


def _check_named(limit: str | None) -> None:
    terms = {term.strip() for term in re.split(r"[,;:]", limit or "")} - {""}
    if terms <= _EVERY:
        raise _no_limit("this template needs a limit that selects less than all hosts")


def _check_selects_less(
    context: WebContext, run: AuthorizedRun, body: RunOptions, rights: User, hosts: frozenset[str]
) -> None:
    """Raises InvalidRequest for a pattern that selects all that there is without it; a plain name of one does not."""
    if len(hosts) < 2 and not _IS_PATTERN.search(body.limit or ""):
        return
    try:
        found = task_launch.authorize_request(context, rights, body.model_copy(update={"limit": None}), is_preview=True)
    except (Forbidden, NotFound):
        return  # without it the request is refused, so it does limit
    # Apart here too: in a run of admin's, a preview as well, the values would be templates.
    found = launch_values.set_apart(found, run.steps[-1].launch_vars)
    if hosts == _hosts(found.model_copy(update={"user": run.user, "origin": run.origin})):
        raise _no_limit("selects every host; this template needs a limit that selects less")


def _no_limit(message: str) -> InvalidRequest:
    return InvalidRequest(f"limit: {message}", code="limit_required", errors=[FieldError("limit", message)])


def _hosts(run: AuthorizedRun) -> frozenset[str]:
    """Returns the hosts of all plays. Raises Unavailable."""
    found = run_preview(preview_request.preview_of(run, "plan"))
    try:
        if found.content is not None:
            return frozenset(host for play in found.content["plays"] for host in play["hosts"])
        why = found.detail or ""
    except (KeyError, TypeError):
        why = "the preview run returned invalid data"
    raise Unavailable(f"The hosts of this launch are not known, so it was refused: {why}", code="hosts_unknown")
