"""Choices of a template's variables that are read at each launch: the hosts of a group of the inventory, the tags of
the project, or what a URL says. They are kept for half a minute.

What cannot be read is an error that names the variable: a value that nobody could compare is never taken.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import cached_property
from urllib.parse import urlsplit

from flansible.authorization import authorize, isolation, preview_request, project_runs
from flansible.authorization.callbacks import is_host_allowed
from flansible.config import Settings
from flansible.errors import (
    BadGateway,
    DeliveryFailed,
    FieldError,
    Forbidden,
    InvalidRequest,
    RequestError,
    StoreUnavailable,
    Unavailable,
)
from flansible.identity.users import User
from flansible.models import AuthorizedRun, ErrorItem
from flansible.models.template_specs import MAX_CHOICES, ChoicesFrom, TemplateSpec
from flansible.notifications import checked_get
from flansible.web import project_commit, project_lists
from flansible.web.context import WebContext
from flansible.web.preview_run import run_preview
from flansible.web.project_commit import OpenSecrets
from flansible.web.streaming import thread_slots

KEPT_SECONDS = 30
_URL_SECONDS = 5.0
_MOST_BYTES = 256 * 1024
_MOST_CHARACTERS = 1000


def filled(context: WebContext, spec: TemplateSpec, rights: User) -> TemplateSpec:
    """Returns the template with all choices of its variables. Raises InvalidRequest, Forbidden, BadGateway, Unavailable
    that name the variable, and StoreUnavailable."""
    found, problems = _filled(context, spec, rights)
    for problem in problems:
        raise problem
    return found


def shown(context: WebContext, spec: TemplateSpec, rights: User) -> tuple[TemplateSpec, list[ErrorItem]]:
    """Like `filled`, but returns what is wrong with the choices that cannot be read. Raises StoreUnavailable."""
    found, problems = _filled(context, spec, rights)
    return found, [ErrorItem(field=item.field, message=item.message) for one in problems for item in one.errors]


def check_host(settings: Settings, source: ChoicesFrom) -> None:
    """Raises Forbidden for a URL whose host the setting does not have."""
    if source.url is not None and not is_host_allowed(urlsplit(source.url).hostname or "", settings.choices_host_list):
        raise Forbidden(
            "The host of this URL is not in choices_hosts; an operator can add it.", code="choices_forbidden"
        )


def _filled(context: WebContext, spec: TemplateSpec, rights: User) -> tuple[TemplateSpec, list[RequestError]]:
    reader, variables, problems = _Reader(context, spec, rights), dict(spec.variables), []
    for name, variable in spec.variables.items():
        if variable.choices_from is None:
            continue
        try:
            found = reader.read(variable.choices_from)
            if not found:
                raise InvalidRequest(
                    f"has no choices: there are none {reader.words(variable.choices_from)}", code="no_choices"
                )
            variables[name] = variable.model_copy(update={"choices": found})
        except RequestError as error:
            problems.append(_named(error, f"{'secret_vars' if variable.secret else 'extra_vars'}.{name}"))
    return spec.model_copy(update={"variables": variables}), problems


def _named(error: RequestError, field: str) -> RequestError:
    """Returns the error with the variable: what is neither refused nor empty is not to be had now."""
    if error.code == "no_choices":
        return InvalidRequest(f"{field} {error.message}", code=error.code, errors=[FieldError(field, error.message)])
    message = f"its choices cannot be read: {error.message}"
    items = [FieldError(field, message)]
    if isinstance(error, Forbidden):
        return Forbidden(f"{field}: {message}", code=error.code, errors=items)
    kind = BadGateway if isinstance(error, BadGateway) else Unavailable
    return kind(f"{field}: {message}", code="choices_unknown", errors=items)


class _Reader:
    """Reads the choices of one template, with the rights that it has."""

    def __init__(self, context: WebContext, spec: TemplateSpec, rights: User) -> None:
        self._context, self._request, self._rights = context, spec.request, rights

    def read(self, source: ChoicesFrom) -> list[str]:
        """Raises RequestError and StoreUnavailable."""
        if source.group is not None:
            return self._hosts(source.group)
        if source.tags is not None:
            return self._tags(source.tags)
        assert source.url is not None
        check_host(self._context.settings, source)
        return self._listed(source.url)

    @staticmethod
    def words(source: ChoicesFrom) -> str:
        if source.group is not None:
            return f"in group {source.group} of the inventory"
        return f"among the tags that match {source.tags}" if source.tags is not None else "at the URL"

    def _tags(self, glob: str) -> list[str]:
        project = str(self._request.get("project"))
        run, _ = project_commit.described(self._rights, project)  # the rights come before what is known
        known = f"tags of {project} at {run.url} {glob}"
        if (found := self._context.store.known_choices(known)) is None:
            queue = self._request.get("queue")
            found = project_lists.tags(self._rights, project, glob, queue if isinstance(queue, str) else None)
            self._keep(known, found)
        return found

    def _listed(self, url: str) -> list[str]:
        if (found := self._context.store.known_choices(f"url {url}")) is not None:
            return found
        with thread_slots.slot(self._rights.name) as may_wait:
            if not may_wait:
                raise Unavailable("too many requests are waiting for something; try again in a moment")
            found = _read_url(self._context.settings, url)
        self._keep(f"url {url}", found)
        return found

    def _keep(self, source: str, found: list[str]) -> None:
        with contextlib.suppress(StoreUnavailable):
            self._context.store.keep_choices(source, found, KEPT_SECONDS)

    def _hosts(self, group: str) -> list[str]:
        run, _ = self._inventory_run  # the rights come before what is known
        step, commit = run.steps[0], run.project and run.project.commit
        known = f"group {group} {json.dumps([run.principal, run.queue, commit, step.cwd, step.argv])}"
        if found := self._context.store.known_choices(known):
            return found
        found = sorted(self._groups.get(group, ()))
        self._keep(known, found)
        return found

    @cached_property
    def _groups(self) -> dict[str, list[str]]:
        run, opened = self._inventory_run
        run = project_commit.with_secrets(run, opened())
        found = run_preview(preview_request.preview_of(run, "inventory"))
        if found.content is None or not isinstance(found.content.get("groups"), dict):
            raise Unavailable(found.detail or "no reply")
        groups: dict[str, list[str]] = found.content["groups"]
        return groups

    @cached_property
    def _inventory_run(self) -> tuple[AuthorizedRun, OpenSecrets]:
        settings, rights, project = self._context.settings, self._rights, self._request.get("project")
        inventory = self._request.get("inventory") or settings.default_inventory
        if not isinstance(inventory, str):
            raise InvalidRequest("choices_from needs one inventory in the request")
        confined = isolation.for_user(rights, settings.isolation)
        if not isinstance(project, str):
            return authorize.authorize_inventory(rights, inventory, settings, confined), lambda: None
        ref, queue = (self._request.get(name) for name in ("ref", "queue"))
        words = (ref if isinstance(ref, str) else None, queue if isinstance(queue, str) else None)
        found, opened = project_commit.find(rights, project, *words)
        return project_runs.authorize_inventory(rights, inventory, found, settings, confined), opened


def _read_url(settings: Settings, url: str) -> list[str]:
    """Raises BadGateway."""
    try:
        body = checked_get.get(
            url, allow_private=settings.choices_private, most_bytes=_MOST_BYTES, seconds=_URL_SECONDS
        )
    except DeliveryFailed as error:
        raise BadGateway(f"the URL did not give them: {error}") from error
    try:
        found = list(dict.fromkeys(_strings(json.loads(body))))
    except (ValueError, RecursionError) as error:
        raise BadGateway("the URL does not reply with a JSON list of strings") from error
    if len(found) > MAX_CHOICES:
        raise BadGateway(f"the URL replies with more than {MAX_CHOICES} of them")
    return found


def _strings(value: object) -> Iterator[str]:
    if not isinstance(value, list):
        raise ValueError("no list")
    for one in value:
        if not isinstance(one, str) or not one or len(one) > _MOST_CHARACTERS or not one.isprintable():
            raise ValueError("no short string")
        yield one
