"""Which addresses are dialled for users, and that the one dialled is the one that was checked."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from flansible.authorization.callbacks import is_host_allowed
from flansible.errors import AddressRefused, DeliveryFailed, DeliveryRefused
from flansible.notifications import webhook_sender
from flansible.notifications.webhook_sender import Post
from flansible.system.addresses import LookUp, checked_addresses, is_internal
from tests.helpers.receivers import Receiver


def names(*addresses: str) -> LookUp:
    def look_up(_host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return look_up


PRIVATE = (
    *("127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "::1"),
    *("fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "192.0.2.1", "198.18.0.1", "240.0.0.1"),
    *("255.255.255.255", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "2002:a00:1::", "64:ff9b::7f00:1"),
    *("64:ff9b::a9fe:a9fe", "::7f00:1", "64:ff9b:1::a00:1", "2001:db8::1"),
    *("::ffff:0:7f00:1", "1000::1", "4000::1", "fe00::1"),
)
NEVER = (
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "224.0.0.1",
    "239.1.1.1",
    "ff02::1",
    "ff0e::1",
    "::ffff:0.0.0.0",
    "::ffff:224.0.0.1",
)
PUBLIC = ("93.184.216.34", "2606:2800:220:1::1", "1.1.1.1", "64:ff9b::101:101", "::ffff:1.1.1.1")


@pytest.mark.parametrize("address", [*PRIVATE, *NEVER])
def test_what_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused):
        checked_addresses("receiver", 80, allow_private=False, look_up=names(address))


@pytest.mark.parametrize("address", NEVER)
def test_what_is_no_receiver_is_refused_even_where_private_ones_are_allowed(address: str) -> None:
    with pytest.raises(AddressRefused):
        checked_addresses("receiver", 80, allow_private=True, look_up=names(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_ones_are_dialled(address: str) -> None:
    assert checked_addresses("receiver", 443, allow_private=False, look_up=names(address)) == [(address, 443)]


def test_one_private_address_among_public_ones_refuses_all() -> None:
    with pytest.raises(AddressRefused, match=r"10\.0\.0\.1"):
        checked_addresses("receiver", 80, allow_private=False, look_up=names("1.1.1.1", "10.0.0.1"))


INTERNAL_HOSTS = (
    *("localhost", "LocalHost", "git.localhost", "localhost.", "0", "2130706433", "0x7f.1", "0177.0.0.1", "127.1"),
    *("10.1", "169.254.169.254", "[::1]", "::1", "[::ffff:127.0.0.1]", "[fe80::1%eth0]", "[::]", "[fd00::1]"),
)


@pytest.mark.parametrize("host", INTERNAL_HOSTS)
def test_an_internal_host_is_seen_in_every_spelling(host: str) -> None:
    assert is_internal(host)


@pytest.mark.parametrize("host", ("git.example.org", "localhost.example.org", "1.1.1.1", "16843009", "[2606:4700::1]"))
def test_a_public_host_and_a_name_are_not_taken_for_an_internal_one(host: str) -> None:
    assert not is_internal(host)


def test_a_webhook_to_a_private_address_is_refused_for_good_and_says_what_allows_it() -> None:
    with pytest.raises(DeliveryRefused, match=r"not a public one \(allow_private\)"):
        webhook_sender.post(Post("http://127.0.0.1:1/", "msg_1", b"{}"))


def test_a_name_that_changes_its_address_between_look_up_and_dial_is_dialled_where_it_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second look-up, which a library would make by itself, would give another address."""
    receiver = Receiver()
    looked_up: list[str] = []
    dialled: list[Any] = []
    connect, real = socket.create_connection, socket.getaddrinfo

    def look_up(host: str, port: int, *more: Any, **named: Any) -> list[tuple[Any, ...]]:
        if host == "127.0.0.1":
            return real(host, port, *more, **named)
        looked_up.append(host)
        address = "93.184.216.34" if len(looked_up) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def dial(address: Any, *more: Any) -> socket.socket:
        dialled.append(address)
        return connect(("127.0.0.1", receiver.port), *more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", dial)
    try:
        url = f"http://rebind.example.org:{receiver.port}/hook?a=b"
        assert webhook_sender.post(Post(url, "msg_1", b"{}", look_up=look_up)) == "200"
    finally:
        receiver.stop()
    assert (looked_up, dialled) == (["rebind.example.org"], [("93.184.216.34", receiver.port)])
    [got] = receiver.received
    assert got.headers["host"] == f"rebind.example.org:{receiver.port}" and got.path == "/hook?a=b"


def test_redirects_are_not_followed_and_say_so() -> None:
    receiver, inside = Receiver(), Receiver()
    receiver.answer = lambda _: (302, {"Location": inside.url}, b"")
    try:
        with pytest.raises(DeliveryFailed, match="302: redirects are not followed"):
            webhook_sender.post(Post(receiver.url, "msg_1", b"{}", allow_private=True))
    finally:
        receiver.stop()
        inside.stop()
    assert inside.received == []


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, proxy = Receiver(), Receiver()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    try:
        assert webhook_sender.post(Post(receiver.url, "msg_1", b"{}", allow_private=True)) == "200"
    finally:
        receiver.stop()
        proxy.stop()
    assert proxy.received == []


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_a_status_that_is_no_success_fails_with_it_and_nothing_of_the_body(status: int) -> None:
    receiver = Receiver()
    receiver.answer = lambda _: (status, {}, b"inner secret")
    try:
        with pytest.raises(DeliveryFailed, match=f"^{status}$"):
            webhook_sender.post(Post(receiver.url, "msg_1", b"{}", allow_private=True))
    finally:
        receiver.stop()


def test_410_ends_it() -> None:
    receiver = Receiver()
    receiver.answer = lambda _: (410, {}, b"")
    try:
        with pytest.raises(DeliveryRefused, match="wants no more"):
            webhook_sender.post(Post(receiver.url, "msg_1", b"{}", allow_private=True))
    finally:
        receiver.stop()


@pytest.mark.parametrize("trickles", [False, True])
def test_a_receiver_that_hangs_is_cut_off(trickles: bool) -> None:
    """Also one that sends a byte now and then, so that no single wait is long."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        try:
            while trickles:
                connection.sendall(b"H")
                if stopped.wait(0.05):
                    break
            stopped.wait(10)
        except OSError:
            pass
        connection.close()

    stopped = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with pytest.raises(DeliveryFailed):
            post = Post(f"http://127.0.0.1:{listener.getsockname()[1]}/", "msg_1", b"{}", allow_private=True)
            webhook_sender.post(post, total_seconds=0.5)
    finally:
        stopped.set()
        thread.join(5)
        listener.close()


def test_a_reply_without_end_is_read_to_a_limit() -> None:
    receiver = Receiver()
    receiver.answer = lambda _: (200, {}, b"x" * 5_000_000)
    try:
        assert webhook_sender.post(Post(receiver.url, "msg_1", b"{}", allow_private=True)) == "200"
    finally:
        receiver.stop()


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("ci.example.org", True),
        ("CI.example.org.", True),
        ("a.hooks.example.org", True),
        ("hooks.example.org", False),
        ("evilhooks.example.org", False),
        ("ci.example.org.evil.net", False),
        ("127.0.0.1", False),
        ("", False),
    ],
)
def test_hosts_of_callbacks(host: str, allowed: bool) -> None:
    assert is_host_allowed(host, ("ci.example.org", "*.hooks.example.org")) == allowed
