"""The order in which a connection ends: its descriptor may be the next client's at once."""

from __future__ import annotations

import socket
from types import SimpleNamespace

from flansible.web.server.client_connection import ClientConnection
from flansible.web.server.connection_table import ConnectionTable
from flansible.web.server.request_threads import RequestThreads


class Watched(socket.socket):
    """Notes whether its number was still in the table when it was closed."""

    table: ConnectionTable
    was_known: bool | None = None

    def close(self) -> None:
        if self.was_known is None:
            self.was_known = self.fileno() in self.table._connections
        super().close()


def test_a_reply_that_is_broken_off_frees_its_descriptor_once_nobody_finds_it() -> None:
    table = ConnectionTable(10)
    ours, theirs = socket.socketpair()
    watched = Watched(ours.family, ours.type, ours.proto, fileno=ours.detach())
    watched.table = table
    connection = ClientConnection(watched, ("127.0.0.1", 1), None, "127.0.0.1", 1e9)
    connection.reply = SimpleNamespace(head=SimpleNamespace(chunked=False), close=lambda: None)
    table.add(connection)
    threads = RequestThreads.__new__(RequestThreads)
    threads._table = table
    threads._cut_off(connection, ConnectionResetError())
    assert watched.was_known is False
    theirs.close()
    table.epoll.close()
