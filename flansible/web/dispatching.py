"""Makes the dispatcher of notifications of this web process, of the objects that it has."""

from __future__ import annotations

from flansible.history.definition_rows import DefinitionRows
from flansible.notifications.dispatcher import Dispatcher
from flansible.notifications.recipients import Notifications, Recipients
from flansible.notifications.sending import Sender
from flansible.web.context import WebContext


def notification_dispatcher(context: WebContext) -> Dispatcher | None:
    """Returns the dispatcher, not started; None without a database, in which deliveries are kept."""
    store, settings = context.store, context.settings
    if store.archive is None or context.deliveries is None or context.hook_calls is None or context.credentials is None:
        return None
    notifications = Notifications(DefinitionRows(store.archive.database), context.sealer)
    recipients = Recipients(store, context.rbac.users, settings.link_url)
    sender = Sender(notifications, context.credentials, context.rbac.users, settings)
    return Dispatcher(store, context.deliveries, context.hook_calls, notifications, recipients, sender)
