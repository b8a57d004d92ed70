"""What templates have of their own as definitions: their check when they are written, and the schema of a launch."""

from __future__ import annotations

from typing import Any

from flansible.authorization import project_rights
from flansible.definitions import template_checks, template_schema
from flansible.errors import FieldError, Forbidden, InvalidRequest, NotFound, RequestError, StoreUnavailable
from flansible.history.definition_rows import StoredDefinition
from flansible.identity.users import User
from flansible.models import AdhocRequest, ErrorItem, PlaybookRequest
from flansible.models.template_specs import TemplateSpec
from flansible.web import choices, task_launch, template_launch
from flansible.web.context import WebContext
from flansible.web.kind_rules import Written
from flansible.web.login.authentication import may_run


def check(written: Written) -> None:
    """Raises InvalidRequest for what it cannot be, Forbidden for what the rights that it would have do not allow."""
    assert isinstance(written.spec, TemplateSpec)
    spec, users = written.spec, written.context.rbac.users()
    if spec.run_as is not None and not written.user.is_admin:
        raise Forbidden("run_as: only admin sets it.", code="run_as_forbidden")
    rights = users.get(spec.run_as) if spec.run_as is not None else written.user
    if rights is None:
        written.refuse([FieldError("run_as", "is no user of rbac.json")])
        return
    written.refuse(template_checks.check_spec(spec, is_of_admin=rights.is_admin))
    for variable in spec.variables.values():
        if variable.choices_from is not None:
            choices.check_host(written.context.settings, variable.choices_from)
    where = f"{written.where}.request" if written.where else "request"
    body = task_launch.parse_request(spec.kind, dict(spec.request), where)
    if isinstance(body, AdhocRequest | PlaybookRequest) and body.project is not None:
        # Its commit is found when it is launched.
        project_rights.check_use(rights, body.project)
        return
    try:
        task_launch.authorize_request(written.context, rights, body, is_preview=True)
    except InvalidRequest as error:
        written.refuse(FieldError(f"request.{one.field}", one.message) for one in error.errors)
        raise
    except NotFound:
        pass  # a checkout may bring it; it is needed when the template is launched
    except Forbidden as refusal:
        # A launch may name what the rights allow.
        fields = {one.field for one in refusal.errors}
        if not fields or not fields <= set(spec.open):
            raise


def compute(context: WebContext, user: User, found: StoredDefinition, is_whole: bool) -> dict[str, Any]:
    """Returns whether the user may launch it, and what they may set. is_whole: with choices that have to be read.

    Reading them may run an inventory program with the template's rights, so it is for those who may start one.
    """
    spec, problems = TemplateSpec.model_validate(found.spec), list[ErrorItem]()
    if is_whole and template_launch.may_launch(user, found) and user.may_act and may_run():
        try:
            rights = template_launch.rights_user(context, found)
            spec, problems = choices.shown(context, template_launch.described(context, spec, rights), rights)
        except (RequestError, StoreUnavailable):
            pass  # a launch says what is wrong
    return {
        "may_launch": template_launch.may_launch(user, found),
        "launch_schema": template_schema.launch_schema(spec),
        "choices_problems": [one.model_dump() for one in problems],
    }
