"""`POST /api/templates/<name>/launch`."""

from __future__ import annotations

from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from flansible.definitions.kinds import TEMPLATES
from flansible.errors import FieldError, Forbidden, InvalidRequest, NotFound
from flansible.models import PreviewReply
from flansible.web import task_launch, template_launch
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.middleware import audit_context
from flansible.web.parsing import parse_object, parse_query
from flansible.web.resources import definitions, preview
from flansible.web.resources.submissions import accepted
from flansible.web.task_launch import IDEMPOTENCY_KEY
from flansible.web.template_launch import TemplateLaunch


class LaunchQuery(BaseModel):
    """`?preview=&during_freeze=` of a launch."""

    model_config = ConfigDict(extra="forbid")

    preview: bool = Field(False, description="Start nothing: reply as `preview` does, with status 200.")
    during_freeze: bool = Field(False, description="Start it also while a freeze is in force.")


class TemplateLauncher(PrivateResource):
    """Launch a template that the caller may launch.

    The body sets what the template leaves open, and nothing else: any other field is an error that names it. The run
    has the rights of the template's owner, or of its `run_as`. Who may not launch it gets 404, as for none.
    """

    def post(self, name: str) -> Response:
        """Launch a template"""
        query = parse_query(LaunchQuery)
        definitions.find_name(TEMPLATES, name)
        key = task_launch.check_key(request.headers.get(IDEMPOTENCY_KEY))
        wanted = TemplateLaunch(name, current_user(), parse_object(), key=key, during_freeze=query.during_freeze)
        if query.preview:
            return _preview(wanted)
        return accepted(template_launch.launch(web_context(), wanted, audit_context.event))


def _preview(wanted: TemplateLaunch) -> Response:
    template_launch.find(web_context(), wanted.user, wanted.name)
    what = f"template {wanted.name}"
    try:
        prepared = template_launch.prepare(web_context(), wanted, is_preview=True)
    except (Forbidden, InvalidRequest, NotFound) as refusal:
        event = audit_context.event("preview", what=what, outcome="refused", code=refusal.code)
        audit_context.note_throttled(wanted.user.name, event)
        return jsonify(preview.refused(refusal, []).model_dump(mode="json"))
    if prepared.spec.kind == "git":
        message = "there is no preview of a Git update"
        raise InvalidRequest(message, errors=[FieldError("preview", message)])
    audit_context.note_throttled(wanted.user.name, audit_context.event("preview", what=what, outcome="allowed"))
    found: PreviewReply = preview.of_run(prepared.run, prepared.body, prepared.rights, [])
    return jsonify(found.model_dump(mode="json"))
