"""Tells receivers what has happened to tasks: signed webhooks, mails, services by Apprise, callbacks of requests.

A thread of each web process (dispatcher.py), of which one is elected, moves entries of the outbox (store/outbox.py) to
the table of deliveries, and delivers those that are due. docs/architecture/notifications.md has the way. May import
`authorization`, `definitions`, `identity`, `history`, `store`, `sealing`, `config`, `models`, `system` and `errors`.
"""
