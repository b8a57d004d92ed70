"""flansible.launcher.process_manager with a health probe over TLS, for a web server that speaks TLS.

A separate program, because `ssl` would be a fifth of the other one's memory.
"""

from __future__ import annotations

import socket
import ssl

from flansible.launcher import process_manager


def wrap_tls(connection: socket.socket) -> socket.socket:
    """Wraps a connection to the web server, which we have just started, in TLS.

    Its certificate is not verified: it names the host that clients use, not the address that we connect to, and nothing
    secret is sent. Whether clients trust it is not checked here.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


if __name__ == "__main__":
    process_manager.main(wrap_tls)
