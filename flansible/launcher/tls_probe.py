"""flansible.launcher.process_manager for a web server that speaks TLS: the same, with a probe that does so too.

A program of its own, because `ssl` is a fifth of all that the other one holds.
"""

from __future__ import annotations

import socket
import ssl

from flansible.launcher import process_manager


def wrap_tls(connection: socket.socket) -> socket.socket:
    """Speak TLS on this connection to the server that we have just started ourselves.

    Its certificate is not verified: it is made out for the name that others know it by, not for the address that we
    connect to, and nothing secret is said. Whether others will trust it is for others to find out.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


if __name__ == "__main__":
    process_manager.main(wrap_tls)
