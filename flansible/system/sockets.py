"""Sockets that do not block, with TLS or without, and how a connection ends. Used by web.server and web.streaming."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

_UNSENT_BYTES = 128 * 1024
_TCP_OPTIONS = (
    # A client's machine that loses power sends nothing: the kernel probes for it.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    # The most that the kernel buffers for a client that does not read; by default megabytes for each.
    (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES),
)
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def prepare(connection: socket.socket) -> None:
    """Makes an accepted connection one that does not block, and that ends or buffers little when nobody reads."""
    connection.setblocking(False)
    for option in _TCP_OPTIONS:
        with contextlib.suppress(OSError):  # a Unix socket has none of these
            connection.setsockopt(*option)


def end_sending(connection: socket.socket) -> None:
    """Sends TLS's end and TCP's; what the client still sends can be received. Raises OSError."""
    if isinstance(connection, ssl.SSLSocket):
        with contextlib.suppress(*WOULD_BLOCK, ssl.SSLError, ValueError):
            connection.unwrap()
    socket.socket.shutdown(connection, socket.SHUT_WR)


def end_as_reset(connection: socket.socket) -> None:
    """Has the next `close` give the client an error; after `close` alone it sees a proper end."""
    with contextlib.suppress(OSError):  # a Unix socket
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset(connection: socket.socket) -> None:
    """Closes a connection so that the client gets an error."""
    end_as_reset(connection)
    connection.close()
