"""Opens the stored secrets that a request names, before flansible.authorization judges it."""

from __future__ import annotations

from flansible.authorization.rules.credential_rules import NO_CREDENTIALS, UsedCredential, UsedCredentials
from flansible.authorization.rules.grants import check_may_act
from flansible.identity.users import User
from flansible.models import RunOptions
from flansible.web.context import WebContext, from_database


def credentials_of(context: WebContext, user: User, request: RunOptions) -> UsedCredentials:
    """Returns what the request names in `credentials`, opened. user: by whose rights the run is authorized.

    Raises Forbidden, NotFound and Unavailable, which name the item; SealError; HistoryUnavailable.
    """
    if not request.credentials:
        return NO_CREDENTIALS
    check_may_act(user)
    credentials = from_database(context.credentials, "credentials")
    opened = []
    for number, name in enumerate(request.credentials):
        place = f"credentials[{number}]"
        found = credentials.open(user, name, place)
        opened.append(UsedCredential(place, found.name, found.owner, found.spec))
    return UsedCredentials(frozenset(one.name for one in opened if one.owner == user.name), tuple(opened))
