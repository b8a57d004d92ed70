"""The options of all client commands that name the service and the user, declared once for click and for argparse.

Apart from `options`, so that `flansible --help` does not load argparse.
"""

from __future__ import annotations

from typing import NamedTuple


class LoginOption(NamedTuple):
    """One option with a value; its help is written as argparse shows it."""

    name: str
    metavar: str
    help: str

    @property
    def field(self) -> str:
        return self.name.removeprefix("--").replace("-", "_")


LOGIN_OPTIONS = (
    LoginOption("--url", "URL", "the service; default: $FLANSIBLE_URL, client.ini, http://127.0.0.1:3000"),
    LoginOption("--api-user", "USER", "its user; default: $FLANSIBLE_USER, client.ini"),
    LoginOption(
        "--api-password-file",
        "FILE",
        "file with the password; default: $FLANSIBLE_PASSWORD, client.ini, else the terminal prompts for it",
    ),
    LoginOption(
        "--api-token-file", "FILE", "file with a token, instead of both; default: $FLANSIBLE_TOKEN, client.ini"
    ),
    LoginOption(
        "--api-ca-file",
        "FILE",
        "certificates that may sign the service's; default: $FLANSIBLE_CA_FILE, client.ini, the system's",
    ),
)
