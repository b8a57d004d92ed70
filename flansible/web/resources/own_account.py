"""One's own account: the password and tokens; for admin, what each user may reach."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Response, jsonify

from flansible.authorization import describe, isolation
from flansible.errors import (
    ConfigurationError,
    Conflict,
    FieldError,
    Forbidden,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from flansible.identity import passwords, tokens
from flansible.identity.tokens import Token
from flansible.models.account_bodies import (
    AccountToken,
    AccountTokens,
    DescribedUser,
    DescribedUsers,
    NewAccountToken,
    PasswordChange,
    TokenRequest,
)
from flansible.system.timestamps import timestamp
from flansible.web.context import web_context
from flansible.web.login import session_cookie
from flansible.web.login.authentication import (
    PrivateResource,
    check_own_password,
    current_session,
    current_user,
    require_no_token,
)
from flansible.web.middleware import audit_context
from flansible.web.parsing import NoFields, parse_body, parse_query, require_no_body


class OwnPassword(PrivateResource):
    """The caller's password in rbac.json."""

    def put(self) -> Response:
        """Change the password

        Every session of the user ends but this one, which gets a new cookie; read its `csrf_token` anew. Tokens stay.
        """
        body = parse_body(PasswordChange)
        require_no_token()
        user, rbac_file = current_user(), web_context().settings.rbac_file
        if not check_own_password(user.name, body.current_password):
            message = "is not the password of now"
            raise InvalidRequest(
                f"current_password: {message}", code="wrong_password", errors=[FieldError("current_password", message)]
            )
        web_context().audit.write(audit_context.event("password_set", what=f"of {user.name}", outcome="allowed"))
        try:
            passwords.set_password(rbac_file, user.name, body.new_password)
        except ConfigurationError as error:
            raise Unavailable(f"rbac.json cannot be changed: {error}", code="rbac_unavailable") from error
        response = Response(status=204)
        del response.headers["Content-Type"]
        if current_session() is not None:
            web_context().store.end_session(session_cookie.read())
            cookie, _ = session_cookie.create_session(web_context().rbac.users()[user.name])
            session_cookie.set_on(response, cookie)
        return response


class OwnTokens(PrivateResource):
    """The caller's API tokens."""

    def get(self) -> Response:
        """List the tokens"""
        parse_query(NoFields)
        found = [AccountToken(**_fields(token)) for token in _read() if token.user == current_user().name]
        return jsonify(AccountTokens(tokens=found).model_dump())

    def post(self) -> Response:
        """Make a token; its text is shown once"""
        body = parse_body(TokenRequest)
        require_no_token()
        now = datetime.now(UTC)
        try:
            until = tokens.parse_expiry(body.expires, now)
        except (ValueError, OverflowError):
            message = "takes never, 30d, 12h, 90m, or a future date such as 2027-01-31"
            raise InvalidRequest(f"expires: {message}", errors=[FieldError("expires", message)]) from None
        user = current_user().name
        if sum(one.user == user and not one.is_expired(now) for one in _read()) >= tokens.MOST_OF_USER:
            message = f"You have {tokens.MOST_OF_USER} tokens, and no account may have more. Revoke one first."
            raise Conflict(message, code="too_many_tokens")
        made = tokens.make(user, body.scope, until, now)
        what = f"for {user}, scope {body.scope}, expires {timestamp(until, 'seconds') if until else 'never'}"
        # Audited first: a token without an audit line would go unnoticed.
        web_context().audit.write(
            audit_context.event("token_created", what=what, outcome="allowed", token=made.token.id)
        )
        try:
            tokens.add(web_context().settings.token_file, made.token)
        except ConfigurationError as error:
            raise _unreadable(error) from error
        response = jsonify(NewAccountToken(token=made.text, **_fields(made.token)).model_dump())
        response.status_code = 201
        return response


class OwnToken(PrivateResource):
    """One of the caller's API tokens; admin may revoke everybody's."""

    def delete(self, token_id: str) -> Response:
        """Revoke a token"""
        parse_query(NoFields)
        require_no_body()
        user = current_user()
        found = next((token for token in _read() if token.id == token_id), None)
        if found is None or not (user.is_admin or found.user == user.name):
            raise NotFound("There is no such token of yours.", code="token_not_found")
        try:
            gone = tokens.remove(web_context().settings.token_file, token_id)
        except ConfigurationError as error:
            raise _unreadable(error) from error
        if gone is not None:
            what = f"of {gone.user}, scope {gone.scope}"
            web_context().audit.note(audit_context.event("token_revoked", what=what, outcome="allowed", token=gone.id))
        response = Response(status=204)
        del response.headers["Content-Type"]
        return response


class Users(PrivateResource):
    """All users with what each may reach; for admin."""

    def get(self) -> Response:
        """List users and their rights"""
        parse_query(NoFields)
        if not current_user().is_admin:
            raise Forbidden("Only admin sees the rights of all users. Yours are in every preview.")
        settings, now = web_context().settings, datetime.now(UTC)
        in_force = [token.user for token in _read() if not token.is_expired(now)]
        users = [
            DescribedUser(
                user=user.name,
                role=user.role,
                groups=list(user.groups),
                tokens=in_force.count(user.name),
                rights=describe.sentences(user, isolation.for_user(user, settings.isolation)),
            )
            for _, user in sorted(web_context().rbac.users().items())
        ]
        return jsonify(DescribedUsers(users=users).model_dump())


def _read() -> list[Token]:
    try:
        return tokens.read(web_context().settings.token_file)
    except ConfigurationError as error:
        raise _unreadable(error) from error


def _unreadable(error: ConfigurationError) -> Unavailable:
    return Unavailable(f"The token file cannot be used: {error}", code="tokens_unavailable")


def _fields(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "scope": token.scope,
        "created": timestamp(token.created, "seconds"),
        "expires": timestamp(token.expires, "seconds") if token.expires else None,
        "is_expired": token.is_expired(datetime.now(UTC)),
    }
