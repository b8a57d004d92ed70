"""HTTP Basic against rbac.json: who is asking."""

from __future__ import annotations

from typing import cast

from flask import Response
from flask_httpauth import HTTPBasicAuth
from flask_restful import Resource

from flansible.errors import NotAuthenticated
from flansible.rbac import User
from flansible.web import problems
from flansible.web.services import services

_basic = HTTPBasicAuth()


@_basic.verify_password
def _verify(name: str, password: str) -> User | None:
    return services().rbac.authenticate(name, password) if name else None


@_basic.error_handler
def _refuse(status: int) -> Response:
    return problems.answer(NotAuthenticated("Give a user and password of rbac.json by HTTP Basic, as curl -u does."))


def current_user() -> User:
    """The user whose password came with this request; only within a PrivateResource."""
    return cast(User, _basic.current_user())


def asking_user() -> User | None:
    """The user when the request carries a right password; None for everyone else. For public resources."""
    credentials = _basic.get_auth()
    if credentials is None or credentials.username is None:
        return None
    return services().rbac.authenticate(credentials.username, credentials.password or "")


class PrivateResource(Resource):
    """A resource that only a user of rbac.json may touch."""

    method_decorators = [_basic.login_required]
