"""Finds the service for the client commands, and the user and password or the token.

For each: the option, then FLANSIBLE_URL, FLANSIBLE_USER, FLANSIBLE_PASSWORD, FLANSIBLE_TOKEN and FLANSIBLE_CA_FILE,
then ~/.config/flansible/client.ini. The first of these that names a token or a user decides between the two; a token
wins over a user in the same place. Neither token nor password can be an option, because all users of a machine can read
command lines; without a password the terminal prompts for it.
"""

from __future__ import annotations

import configparser
import getpass
import ipaddress
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from flansible.client import Client
from flansible.client.http_connection import url_scheme
from flansible.errors import OptionError

DEFAULT_URL = "http://127.0.0.1:3000"
SECTION = "client"
KEYS = ("url", "user", "password", "token", "ca_file")


@dataclass(frozen=True)
class Given:
    """The login options as given. The first line of `password_file` or `token_file` is the secret; `ca_file`:
    certificates, one of which must have signed the service's."""

    url: str | None = None
    user: str | None = None
    password_file: str | None = None
    token_file: str | None = None
    ca_file: str | None = None


@dataclass(frozen=True)
class Profile:
    """A service with a user or a token; with a token, user and password are empty."""

    url: str
    user: str
    password: str = field(repr=False)
    token: str = field(default="", repr=False)
    ca_file: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether the service runs on this machine, so that it has the same files under the same names."""
        host = httpx.URL(self.url).host
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def client(self, timeout_seconds: float = 30.0) -> Client:
        return Client(
            self.url, self.user, self.password, token=self.token, timeout_seconds=timeout_seconds, ca_file=self.ca_file
        )


def find(given: Given, environ: Mapping[str, str] = os.environ) -> Profile:
    """Finds the profile. Raises OptionError if something is missing or cannot be read."""
    path = Path("~/.config/flansible/client.ini").expanduser()
    kept = _read(path)
    url = given.url or environ.get("FLANSIBLE_URL") or kept.get("url") or DEFAULT_URL
    if "@" in url.partition("//")[2].partition("/")[0]:
        raise OptionError("other users can read a URL with a password in it; give the password in FLANSIBLE_PASSWORD")
    url_scheme(url)
    named = given.ca_file or environ.get("FLANSIBLE_CA_FILE") or kept.get("ca_file")
    ca_file = os.path.expanduser(named) if named else None
    if token := _token(given, environ, kept):
        return Profile(url, "", "", token, ca_file)
    user = given.user or environ.get("FLANSIBLE_USER") or kept.get("user")
    if not user:
        raise OptionError(f"no user: give --api-user, FLANSIBLE_USER, or `user` below [{SECTION}] in {path}")
    # The password in client.ini belongs to the user there: it must not be sent for another user.
    kept_password = kept.get("password") if user == kept.get("user", user) else None
    password = (
        _from_file("--api-password-file", given.password_file) or environ.get("FLANSIBLE_PASSWORD") or kept_password
    )
    return Profile(url, user, password or _prompt(user, url, path), ca_file=ca_file)


def _token(given: Given, environ: Mapping[str, str], kept: Mapping[str, str]) -> str | None:
    """Returns the token; None if a user and password are to be used."""
    if given.token_file is not None:
        if given.user or given.password_file:
            raise OptionError("--api-token-file already names the user: leave out --api-user and --api-password-file")
        return _from_file("--api-token-file", given.token_file)
    if given.user or given.password_file:
        return None
    if token := environ.get("FLANSIBLE_TOKEN", "").strip():
        return token
    return None if environ.get("FLANSIBLE_USER") or environ.get("FLANSIBLE_PASSWORD") else kept.get("token")


def _from_file(option: str, name: str | None) -> str | None:
    if name is None:
        return None
    what = option.removeprefix("--api-").removesuffix("-file")
    try:
        with open(os.path.expanduser(name), encoding="utf-8") as file:
            found = file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{option} {name} cannot be read: {error}") from error
    if not found:
        raise OptionError(f"{option} {name} has no {what} in its first line")
    return found


def _prompt(user: str, url: str, path: Path) -> str:
    if not sys.stdin.isatty():
        raise OptionError(
            f"no password: give FLANSIBLE_PASSWORD, --api-password-file, or `password` below [{SECTION}] in {path}"
        )
    return getpass.getpass(f"Password of {user} at {url}: ")


def _read(path: Path) -> dict[str, str]:
    """Reads client.ini; a missing file is empty."""
    parser = configparser.ConfigParser(interpolation=None, default_section="\0none")
    try:
        with path.open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise OptionError(f"other users can read {path}, which may hold secrets: chmod 600 {path}")
            parser.read_file(file)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} cannot be read: {error}") from error
    except configparser.Error as error:
        # configparser's message may quote a line with the password.
        raise OptionError(f"{path} is not of the form [{SECTION}], key = value ({type(error).__name__})") from None
    unknown = [section for section in parser.sections() if section != SECTION]
    unknown += [key for section in parser.sections() for key in parser[section] if key not in KEYS]
    if unknown:
        raise OptionError(f"{path}: {unknown[0]} is unknown; below [{SECTION}] there are {', '.join(KEYS)}")
    return dict(parser[SECTION]) if SECTION in parser else {}
