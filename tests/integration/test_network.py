"""The machines of tests/helpers/network.py: links are cut in the direction that was meant, frozen machines stop."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.helpers.network import Direction, Machine, Network, can_delay, require_network
from tests.helpers.waiting import eventually

LISTENER = (
    "import socket; s = socket.create_server((%r, 7)); print('ready', flush=True)\nwhile True: s.accept()[0].close()"
)


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    require_network()
    with Network() as network:
        yield network.machine(), network.machine()


def reaches(one: Machine, other: Machine, seconds: float = 0.5) -> bool:
    code = f"import socket; socket.create_connection(({other.address!r}, 7), {seconds})"
    return one.run(["python3", "-c", code]).returncode == 0


def listen(machine: Machine) -> subprocess.Popen[bytes]:
    process = machine.popen(["python3", "-c", LISTENER % machine.address], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return process


def test_a_cut_link_drops_packets_without_a_word_and_a_healed_one_carries_them(
    machines: tuple[Machine, Machine],
) -> None:
    one, other = machines
    process = listen(other)
    assert reaches(one, other)
    directions: tuple[Direction, ...] = ("in", "out", "both")
    for direction in directions:
        one.cut(direction)
        assert not reaches(one, other)
        one.heal()
        assert reaches(one, other)
    other.kill()
    assert process.wait(10) == -9


def test_the_test_itself_is_on_a_machine_for_a_while(machines: tuple[Machine, Machine]) -> None:
    one, other = machines
    process = listen(other)
    before = os.readlink("/proc/thread-self/ns/net")
    with one.inside():
        assert os.readlink("/proc/thread-self/ns/net") != before
        socket.create_connection((other.address, 7), 5).close()
        assert os.getpid() not in one.processes()  # `kill` would end the test
    assert os.readlink("/proc/thread-self/ns/net") == before
    other.kill()
    assert process.wait(10) == -9


RECEIVER = """
import socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind((%r, 9))
receiver.settimeout(2)
print("ready", flush=True)
print(receiver.recv(9))
"""


@pytest.mark.parametrize(("direction", "arrives"), [("in", True), ("out", False)])
def test_a_link_is_cut_in_one_direction_alone(
    machines: tuple[Machine, Machine], direction: Direction, arrives: bool
) -> None:
    """Datagrams of a machine that hears nothing arrive; those of one that is not heard do not."""
    one, other = machines
    assert not reaches(one, other)  # refused; and both know the other's hardware address from here on
    receiver = other.popen(
        ["python3", "-c", RECEIVER % other.address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert receiver.stdout is not None and receiver.stdout.readline() == b"ready\n"
    one.cut(direction)
    one.run(
        ["python3", "-c", f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ({other.address!r}, 9))"]
    )
    assert (receiver.stdout.read() == b"b'x'\n") is arrives
    receiver.stdout.close()
    receiver.wait(10)


def test_a_frozen_machine_stands_still_and_goes_on_where_it_was(machines: tuple[Machine, Machine]) -> None:
    one, other = machines
    process = listen(other)
    other.freeze()
    assert reaches(one, other)  # the kernel takes the connection; its process takes note later
    assert process.poll() is None
    other.thaw()
    eventually(lambda: reaches(one, other))
    other.kill()
    process.wait(10)


def test_nothing_is_left_of_a_network() -> None:
    require_network()
    with Network() as network:
        machine = network.machine()
        process = machine.popen(["sleep", "60"])
        eventually(machine.processes)  # it may not be there yet
        assert namespaces_of_this_process()
    assert process.wait(10) == -9
    assert namespaces_of_this_process() == []


def namespaces_of_this_process() -> list[str]:
    """Other processes of the test run may have networks of their own."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.startswith(f"fl{os.getpid()}-")]


def test_a_lossy_link_loses_some_packets(machines: tuple[Machine, Machine]) -> None:
    one, other = machines
    process = listen(other)
    one.lose(60, "out")
    assert reaches(one, other, 30)  # TCP sends again
    one.heal()
    other.kill()
    process.wait(10)


def test_a_delayed_link_is_slower(machines: tuple[Machine, Machine]) -> None:
    if not can_delay():
        pytest.skip("this kernel has no netem")
    one, other = machines
    process = listen(other)
    one.delay(300)
    assert not reaches(one, other, 0.2) and reaches(one, other, 5)
    other.kill()
    process.wait(10)
