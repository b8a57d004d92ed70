"""Example error replies for the API documents: by status, of routes with a body, and those of single routes.

Read by flansible.web.openapi.operations when the app is made.
"""

from __future__ import annotations

from flansible.models import ErrorBody, ErrorItem


def _failure(code: str, message: str, *fields: tuple[str, str]) -> ErrorBody:
    return ErrorBody(message=message, code=code, errors=[ErrorItem(field=name, message=text) for name, text in fields])


_STORE_AWAY = _failure("store_unavailable", "The record store (Redis) does not answer; nothing was queued. Try again.")
_CROSS_SITE = _failure(
    "cross_site", "This request comes from a page of another site, which is not one of cors_origins."
)
_TOO_MANY_FOLLOWERS = _failure(
    "too_many_followers",
    "Too many replies are being followed. Close some, read page by page instead (offset, after), or try again.",
)
_FOLLOWER_LIMIT = _failure(
    "follower_limit",
    "ann follows 200 replies already, the most that is allowed (max_followers_per_user). Close some, read page by page "
    "instead (offset, after), or try again.",
)

_VIEWER = _failure(
    "role_forbidden", "ann may not start or cancel tasks with the role viewer. Ask an admin for the role operator."
)
_NO_DEFINITION = _failure("definition_not_found", "There is no deploy among templates.")
_SCOPE = _failure("scope_forbidden", "This token is read-only (scope read).")
_TOO_MANY_LOGINS = _failure("too_many_logins", "Too many wrong passwords. Try again in 287 seconds, or use a token.")

_NO_CSRF = _failure("csrf", "Send the session's csrf_token (GET /api/session) in the header X-CSRF-Token.")

FAILURES: dict[int, tuple[ErrorBody, ...]] = {
    400: (_failure("invalid_field", "colour: unknown field", ("colour", "unknown field")),),
    401: (
        _failure(
            "not_authenticated",
            "Give a user and password by HTTP Basic, as curl -u does, or a token as Authorization: Bearer.",
        ),
        _failure("not_authenticated", "This user and password, or this token, are not accepted."),
    ),
    403: (
        _SCOPE,
        _failure(
            "forbidden",
            "user: only admin and auditors may list the tasks of other users",
            ("user", "only admin and auditors may list the tasks of other users"),
        ),
    ),
    404: (_failure("task_not_found", "Task not found"),),
    408: (_failure("request_timeout", "The request took too long to arrive."),),
    409: (_failure("task_final", "The task is already final: succeeded."),),
    410: (_failure("output_expired", "Output and events of this task were deleted at 2026-01-31T12:00:00.000Z."),),
    413: (_failure("body_too_large", "The body is over the limit of 4194304 bytes (max_body_bytes)."),),
    414: (_failure("uri_too_long", "Request Line is too large (9000 > 8190)"),),
    412: (
        _failure(
            "changed_meanwhile",
            "It is not the version that If-Match names: somebody else has changed it. Read it again.",
        ),
    ),
    415: (_failure("unsupported_media_type", "Send JSON, with the header Content-Type: application/json."),),
    431: (_failure("headers_too_large", "limit request headers fields size"),),
    429: (_TOO_MANY_LOGINS,),
    500: (_failure("internal_error", "Something failed on our side; the web server's log has the details."),),
    502: (
        _failure(
            "remote_unreachable",
            "The remote of project shop cannot be read: fatal: unable to access 'https://git.example.org/shop.git/'",
        ),
    ),
    503: (_STORE_AWAY,),
}

_NOT_YOURS = (
    "You may not use inventory production (/srv/flansible/playbooks/production). "
    "Yours: /srv/flansible/inventories/dev. Ask an admin to add it to rbac.json."
)

# Errors of routes with a body, in place of those above.
BODY_FAILURES: dict[int, tuple[ErrorBody, ...]] = {
    400: (
        *FAILURES[400],
        _failure("invalid_json", "The body is not JSON: Expecting value: line 1 column 1 (char 0)"),
    ),
    403: (
        _SCOPE,
        _failure(
            "inventory_forbidden",
            f"inventory: {_NOT_YOURS}",
            ("inventory", _NOT_YOURS),
        ),
        _failure(
            "playbook_forbidden",
            "playbook_dir: Only admin may use playbooks outside playbook_root",
            ("playbook_dir", "Only admin may use playbooks outside playbook_root"),
        ),
        _CROSS_SITE,
    ),
    404: (_failure("not_found", "playbook_dir /srv/x does not exist", ("playbook_dir", "does not exist")),),
    409: (
        _failure(
            "idempotency_key_reused",
            "This Idempotency-Key was used for another request within the last 24 hours. Use a new one.",
        ),
    ),
    429: (
        _TOO_MANY_LOGINS,
        _failure(
            "too_many_queued",
            "You have 100 queued tasks, which is your limit. Try again when some have started.",
        ),
    ),
    503: (
        _STORE_AWAY,
        _failure("broker_unavailable", "The message broker does not answer; nothing was queued. Try again."),
        _failure("audit_unavailable", "The audit log cannot be written (audit_file). Nothing was queued; try again."),
    ),
}

# Errors that only this route returns, by endpoint and status.
ROUTE_FAILURES: dict[tuple[str, int], tuple[ErrorBody, ...]] = {
    ("logout", 403): (_NO_CSRF,),
    ("ansibletaskcancel", 403): (_CROSS_SITE, _VIEWER),
    ("compare", 404): (
        _failure(
            "no_earlier_success", "No earlier run of the same that you see has succeeded. Name another task in `with`."
        ),
    ),
    ("host", 404): (_failure("host_not_found", "No task that you see has results of this host."),),
    ("host_facts", 404): (_failure("facts_not_found", "No run that you see has gathered facts of this host."),),
    **{(endpoint, 404): (_NO_DEFINITION,) for endpoint in ("launch_template", "pause_schedule")},
    **{(endpoint, 503): (_TOO_MANY_FOLLOWERS,) for endpoint in ("ansibletaskoutput", "ansibletaskevents")},
    **{(endpoint, 429): (_FOLLOWER_LIMIT,) for endpoint in ("ansibletaskoutput", "ansibletaskevents", "ansibletasks")},
}
