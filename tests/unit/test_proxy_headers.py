"""X-Forwarded-* headers count from configured proxies, and from no other peer."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from flansible import config
from flansible.errors import ConfigurationError
from flansible.web.middleware.proxy_headers import ProxyHeaders

TRUSTED = tuple(ipaddress.ip_network(text) for text in ("10.0.0.0/8", "127.0.0.1/32", "fd00::/8"))
CLIENT = "203.0.113.7"


def seen(trusted: Any = TRUSTED, peer: str = "10.0.0.1", **headers: str) -> dict[str, str]:
    """Returns the environ that the app gets for a request with these headers."""
    environ = {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "HTTP_HOST": "inside"}
    environ |= {f"HTTP_X_FORWARDED_{name.upper()}": value for name, value in headers.items()}

    def app(found: dict[str, str], start_response: Any) -> list[bytes]:
        return []

    ProxyHeaders(app, trusted)(environ, lambda *given: lambda data: None)  # type: ignore[arg-type]
    return environ


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (CLIENT, CLIENT),
        (f"{CLIENT}, 10.9.9.9", CLIENT),
        (f"1.1.1.1, {CLIENT}, 10.9.9.9, 127.0.0.1", CLIENT),
        (f"127.0.0.1, {CLIENT}", CLIENT),
        (f"{CLIENT}:4711", CLIENT),
        (f"::ffff:{CLIENT}", CLIENT),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711, fd00::2", "2001:db8::1"),
        ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        # Nothing that can be believed: the peer, or the last proxy that was understood.
        ("", "10.0.0.1"),
        ("unknown", "10.0.0.1"),
        ("_hidden, 10.3.3.3", "10.3.3.3"),
        (f"{CLIENT}, unknown", "10.0.0.1"),
        (f"{CLIENT},", "10.0.0.1"),
        ("[", "10.0.0.1"),
        ("[]", "10.0.0.1"),
        ("[::1", "10.0.0.1"),
        ("1.2.3.4.5", "10.0.0.1"),
        ("1.2.3.4:x", "10.0.0.1"),
        ("999.1.1.1", "10.0.0.1"),
        ("010.1.1.1", "10.0.0.1"),
        ("' OR 1=1", "10.0.0.1"),
        (",".join(["10.0.0.2"] * 4000), "10.0.0.2"),
        ("\x00\xff", "10.0.0.1"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_proxy_of_ours(forwarded: str, client: str) -> None:
    assert seen(**{"for": forwarded})["REMOTE_ADDR"] == client


@pytest.mark.parametrize("peer", [CLIENT, "11.0.0.1", "::1", "", "garbage", "2001:db8::1"])
def test_nobody_else_is_believed(peer: str) -> None:
    found = seen(peer=peer, **{"for": "1.2.3.4", "proto": "https", "host": "evil.example"})
    assert (found["REMOTE_ADDR"], found["wsgi.url_scheme"], found["HTTP_HOST"]) == (peer, "http", "inside")


def test_a_proxy_names_the_scheme_and_the_host() -> None:
    found = seen(proto="https", host="flansible.example.org:8443")
    assert (found["wsgi.url_scheme"], found["HTTP_HOST"]) == ("https", "flansible.example.org:8443")
    found = seen(proto="javascript, HTTPS", host="evil.example, good.example")
    assert (found["wsgi.url_scheme"], found["HTTP_HOST"]) == ("https", "good.example")


@pytest.mark.parametrize("host", ["", "a b", "evil/path", "user@host", '"><script>', "[", "x:999999", "a" * 300])
@pytest.mark.parametrize("scheme", ["", "ftp", "javascript:", "https://"])
def test_what_is_no_scheme_or_host_is_left_alone(host: str, scheme: str) -> None:
    found = seen(proto=scheme, host=host)
    assert (found["wsgi.url_scheme"], found["HTTP_HOST"]) == ("http", "inside")


def test_an_ipv4_peer_on_a_socket_for_both_is_the_same_proxy() -> None:
    assert seen(peer="::ffff:10.0.0.1", **{"for": CLIENT})["REMOTE_ADDR"] == CLIENT


@pytest.mark.parametrize("value", ["10.0.0.0/33", "proxy.example", "10.0.0.1 10.0.0.2", "*", "10.0.0.1, x"])
def test_what_is_no_network_stops_the_start(tmp_path: Path, value: str) -> None:
    path = tmp_path / "config.ini"
    path.write_text(f"[Default]\ntrusted_proxies = {value}\n")
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        config.load(str(path), {})
    path.write_text("[Default]\ntrusted_proxies = 10.0.0.1/8, ::1,127.0.0.1\n")
    assert [str(found) for found in config.load(str(path), {}).proxy_networks] == [
        "10.0.0.0/8",
        "::1/128",
        "127.0.0.1/32",
    ]
