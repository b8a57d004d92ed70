"""Has git dial an address that was checked, for projects whose host must be a public one: no second look-up decides.

| protocol     | dials what was checked by                                                                      |
|--------------|------------------------------------------------------------------------------------------------|
| https, http  | http.curloptResolve; without redirects and the environment's proxy, which would look up others  |
| ssh          | HostName; HostKeyAlias keeps the name for known_hosts                                           |
| git          | the address in place of the name                                                               |
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from urllib.parse import urlsplit

from flansible.errors import AddressRefused, ProjectError
from flansible.projects.git_configuration import as_variables
from flansible.system import addresses

_PORTS = {"https": 443, "http": 80, "ssh": 22, "git": 9418}
_CONNECT_SECONDS = 5.0


def pinned(url: str, environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Returns the url and the variables to give to git. environment: as without them. Raises ProjectError."""
    # The short form of ssh has a path after the colon.
    parts = urlsplit(url if "://" in url else f"ssh://{url.partition(':')[0]}")
    host = parts.hostname or ""
    port = parts.port or _PORTS[parts.scheme]
    try:
        found = addresses.checked_addresses(host, port, allow_private=False)
        if parts.scheme in ("https", "http"):
            return url, _of_curl(host, port, [address for address, _ in found])
        # These two take one address.
        with addresses.dial(found, _CONNECT_SECONDS) as connection:
            address = str(connection.getpeername()[0])
    except AddressRefused as error:
        raise ProjectError(f"{error}: only admin may have projects there, or an operator with project_hosts") from None
    except OSError as error:
        raise ProjectError(f"{host}: {error.strerror or error}") from None
    if parts.scheme == "ssh":
        alias = host if port == _PORTS["ssh"] else f"[{host}]:{port}"
        options = ["-o", f"HostName={address}", "-o", f"HostKeyAlias={alias}"]
        return url, {"GIT_SSH_COMMAND": f"{environment['GIT_SSH_COMMAND']} {shlex.join(options)}"}
    shown = f"[{address}]" if ":" in address else address
    return parts._replace(netloc=f"{shown}:{port}").geturl(), {}


def _of_curl(host: str, port: int, found: list[str]) -> dict[str, str]:
    given = {"http.followRedirects": "false", "http.proxy": ""}
    if ":" not in host:  # an IPv6 address is dialled as it is
        shown = ",".join(f"[{address}]" if ":" in address else address for address in found)
        given["http.curloptResolve"] = f"{host}:{port}:{shown}"
    return as_variables(given)
