"""Sockets: ending a connection so that its end is no end of what was sent. Used by web.streaming."""

from __future__ import annotations

import contextlib
import socket
import struct


def reset(connection: socket.socket) -> None:
    """Closes a connection so that the client gets an error; after `close` alone it sees a proper end."""
    with contextlib.suppress(OSError):  # a Unix socket
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
