"""A stand-in for the fork server: speaks flansible.wire, knows no Ansible, and does what a step's argv says.

Started by ForkServerPool(limit, module="tests.scripted_runner") as `python -P -m tests.scripted_runner FD`. argv[0]
names a function below and the rest are its arguments. What happens before it is ready is scripted by a line of an
ansible.cfg in its directory. Standard library only, as the real one's frames.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flansible import wire

PATTERN = bytes(range(256)) * 257  # its length shares no factor with a read's: a shift would show


def pattern(count: int) -> bytes:
    return (PATTERN * (count // len(PATTERN) + 1))[:count]


class Keeper:
    """What stands for a keeper and its run: one process with the run's channel and its two pipes."""

    def __init__(self, channel: socket.socket, output: int, events: int) -> None:
        self.channel, self.output, self.events = channel, output, events
        request = wire.receive(channel)
        assert request is not None
        self.request = request
        self.marks = 0

    def write(self, data: bytes, descriptor: int | None = None) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.output if descriptor is None else descriptor, view) :]

    def event(self, **fields: Any) -> None:
        self.marks += 1
        self.write(f"{self.request['colour_mark']}[{self.marks}e".encode())
        self.write(wire.encode({"type": "event", "mark": self.marks, **fields}), self.events)

    def end(self, returncode: int = 0, broken: str | None = None) -> None:
        frame = {"type": "end", "returncode": returncode, "broken": broken, "stats": {}, "custom_stats": {}}
        self.write(wire.encode({**frame, "mark": 0}), self.events)

    def exited(self, returncode: int | None = 0, number: int | None = None, stopped: int = 0) -> None:
        frame = {"type": "exited", "returncode": returncode, "signal": number, "stopped_count": stopped}
        names = [{"pid": 1000 + index, "name": "sleep"} for index in range(stopped)]
        self.channel.sendall(wire.encode({**frame, "stopped": names}))

    def stop_frame(self) -> wire.Frame | None:
        """Waits for the supervisor's next word; None when it has closed the channel."""
        return wire.receive(self.channel)


def say(keeper: Keeper, text: str, returncode: str = "0") -> None:
    """Prints and exits."""
    keeper.write(text.encode())
    keeper.end(int(returncode))
    keeper.exited(int(returncode))


def print_key(keeper: Keeper, text: str, hidden: str) -> None:
    """Prints, and says later which line of that is to be masked: as if the supervisor had read in the worst order."""
    keeper.write(text.encode())
    time.sleep(0.3)
    keeper.write(wire.encode({"type": "hide", "lines": [hidden], "mark": 0}), keeper.events)
    say(keeper, "")


def print_what_it_hides(keeper: Keeper, text: str) -> None:
    """Has what it prints masked, though no key was given to it."""
    keeper.write(wire.encode({"type": "hide", "lines": [text], "mark": 0}), keeper.events)
    time.sleep(0.3)
    say(keeper, text)


def in_colour(keeper: Keeper, text: str) -> None:
    """Prints in a colour that it does not end."""
    say(keeper, f"{keeper.request['colour_mark']}[0;31m{text}")


def flood(keeper: Keeper, count: str) -> None:
    """Prints so many bytes as fast as it can."""
    keeper.write(pattern(int(count)))
    say(keeper, "")


def flood_and_tell(keeper: Keeper, number: str, witness: str) -> None:
    """As flood; the witness file says that all of it was taken from its hands."""
    keeper.write(pattern(int(number)))
    Path(witness).write_text("done")
    say(keeper, "")


def result(**fields: Any) -> dict[str, Any]:
    """What a callback says of a module's result."""
    names = {"play": "p", "task": "t", "module": "m", "host": "h"}
    return {"event": "host_result", **names, "verdict": "ok", "duration_seconds": 0.5, "result": fields}


def count(keeper: Keeper, number: str) -> None:
    """So many events, each after a line of output, as Ansible does."""
    for index in range(int(number)):
        keeper.write(f"line {index}\n".encode())
        keeper.event(**result(index=index))
    say(keeper, "")


def pieces(keeper: Keeper, number: str) -> None:
    """Events that arrive byte by byte."""
    for index in range(int(number)):
        for byte in wire.encode({"type": "event", **result(index=index), "mark": 0}):
            keeper.write(bytes([byte]), keeper.events)
    say(keeper, "")


def big_event(keeper: Keeper, size: str) -> None:
    """One event that is larger than any pipe."""
    keeper.event(**result(text="y" * int(size)))
    say(keeper, "")


def nested_event(keeper: Keeper, size: str) -> None:
    """One event of so many bytes that takes as much memory as can be, once it is decoded."""
    frame = wire.encode({"type": "event", "mark": 0, **result(lists=0)})[4:-3]
    body = frame + b"[" + b"{}," * ((int(size) - len(frame) - 6) // 3) + b"{}]}}"
    keeper.write(len(body).to_bytes(4, "big") + body, keeper.events)
    say(keeper, "")


def both(keeper: Keeper, text: str) -> None:
    """Output and an end that are still in the pipes when it is over."""
    keeper.write(text.encode())
    keeper.event(event="play_start")
    keeper.end()
    keeper.exited()
    os.close(keeper.output)
    os.close(keeper.events)


def hang(keeper: Keeper, text: str = "hanging\n") -> None:
    """Prints and does nothing until it is asked to stop; then dies of TERM as a run does."""
    keeper.write(text.encode())
    frame = keeper.stop_frame()
    assert frame is None or frame["type"] == "stop"
    if frame is not None:
        keeper.write(b"grace %g\n" % frame["grace_seconds"])
        keeper.exited(None, signal.SIGTERM, stopped=3)


def finish_first(keeper: Keeper, returncode: str) -> None:
    """Is asked to stop just as it comes to its own end."""
    keeper.write(b"hanging\n")
    keeper.stop_frame()
    say(keeper, "done\n", returncode)


def ignore(keeper: Keeper, witness: str) -> None:
    """Does not obey: only the end of the channel ends it. The witness file says that it saw that."""
    keeper.write(b"ignoring\n")
    while keeper.stop_frame() is not None:
        pass
    Path(witness).write_text("the channel ended")


def vanish(keeper: Keeper, text: str = "") -> None:
    """Closes the channel without `exited`, as a keeper that was killed."""
    keeper.write(text.encode())


def deny(keeper: Keeper, reason: str) -> None:
    """Cannot start the run: the machine has no more of something."""
    keeper.channel.sendall(wire.encode({"type": "failed", "reason": reason}))


def half(keeper: Keeper) -> None:
    """Dies in the middle of its last word."""
    keeper.end()
    frame = {"type": "exited", "returncode": 0, "signal": None, "stopped": [], "stopped_count": 0}
    keeper.channel.sendall(wire.encode(frame)[:-3])


def babble(keeper: Keeper) -> None:
    """Says what is no frame on the channel, and keeps it open."""
    keeper.channel.sendall(b"\xff" * 100)
    keeper.stop_frame()


def garbage(keeper: Keeper, more: str = "0") -> None:
    """What is no frame on the events, so much more of it, and then an end as if all were well."""
    keeper.event(event="task_start")
    keeper.write(b"Traceback (most recent call last):\n", keeper.events)
    keeper.write(bytes(int(more)), keeper.events)
    say(keeper, "fine\n")


def lie(keeper: Keeper) -> None:
    """Frames that are JSON objects, with nothing in them as it should be."""
    for frame in ({"type": "event", "mark": "x"}, {"type": "event", "mark": None}, {"type": "end", "mark": [1]}):
        keeper.write(wire.encode(frame), keeper.events)
    say(keeper, "fine\n")


def nest(keeper: Keeper) -> None:
    """A result that is nested as deeply as JSON can be read."""
    marked = wire.encode({"type": "event", "mark": 0, **result(a="NEST")})[4:]
    body = marked.replace(b'"NEST"', b"[" * 900 + b"]" * 900)
    keeper.write(len(body).to_bytes(4, "big") + body, keeper.events)
    say(keeper, "fine\n")


def no_end(keeper: Keeper) -> None:
    """Exit code 0 and not a word of what was done."""
    keeper.write(b"text\n")
    keeper.exited(0)


def broken(keeper: Keeper, why: str, returncode: str = "0") -> None:
    """Executed nothing, and says so."""
    keeper.end(int(returncode), why)
    keeper.exited(int(returncode))


def killed(keeper: Keeper, number: str) -> None:
    """Its run was killed by a signal from outside."""
    keeper.write(b"half a li")
    keeper.exited(None, int(number))


def leave_child(keeper: Keeper, pid_file: str) -> None:
    """Leaves a daemon that holds the pipes and goes on writing."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        keeper.channel.close()
        while True:
            try:
                os.write(keeper.output, b"I am still here\n")
            except OSError:
                signal.pause()
            time.sleep(0.01)
    Path(pid_file).write_text(str(pid))
    say(keeper, "parent\n")


def endless(keeper: Keeper) -> None:
    """Prints until its pipe is closed, or until it is ordered to stop."""
    os.set_blocking(keeper.output, False)
    written = 0
    while not select.select([keeper.channel], [], [], 0)[0]:
        if select.select([keeper.channel], [keeper.output], [])[1]:
            written += os.write(keeper.output, pattern(4096))
    frame = keeper.stop_frame()
    if frame is not None:
        keeper.exited(None, signal.SIGTERM, stopped=1)


def kill_server(keeper: Keeper) -> None:
    """The fork server dies; its run goes on."""
    os.kill(os.getppid(), signal.SIGKILL)
    say(keeper, "went on\n")


def where(keeper: Keeper) -> None:
    """Prints its request, its server and its directory."""
    say(keeper, f"{keeper.request['cwd']}\n{os.getppid()}\n{os.getcwd()}\n")


def descriptors(keeper: Keeper) -> None:
    """Prints the descriptors that it has inherited beside the standard ones and its own three."""
    own = {0, 1, 2, keeper.channel.fileno(), keeper.output, keeper.events}
    found = {int(name) for name in os.listdir("/proc/self/fd")} - own
    say(keeper, f"{sorted(number for number in found if os.path.exists(f'/proc/self/fd/{number}'))}")


def environment(keeper: Keeper) -> None:
    """Prints the names of its environment variables."""
    say(keeper, " ".join(sorted(os.environ)))


SCRIPTS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        say, print_key, print_what_it_hides, in_colour,
        flood, flood_and_tell, count, pieces, big_event, nested_event, both, hang,
        finish_first, ignore, vanish, deny, half, babble, garbage, lie, nest, no_end, broken, killed, leave_child,
        endless, kill_server, where, descriptors, environment,
    )
}  # fmt: skip


def begin(control: socket.socket) -> None:
    """What an ansible.cfg in this directory says about the start."""
    script = Path("ansible.cfg").read_text().split() if Path("ansible.cfg").exists() else []
    if "die" in script:
        print("ERROR: this configuration is broken", file=sys.stderr)
        sys.exit(5)
    if "garbage" in script:
        control.sendall(b"\xff" * 100)
        signal.pause()
    if "silent" in script:
        signal.pause()
    if "deaf" in script:
        control.shutdown(socket.SHUT_RDWR)
        signal.pause()
    control.sendall(wire.encode({"type": "ready", "ansible_version": "scripted", "config_file": None}))


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are reaped by the kernel
    begin(control)
    while True:
        message, received, _, _ = socket.recv_fds(control, 1, 3)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            channel = socket.socket(fileno=received[0])
            keeper = Keeper(channel, received[1], received[2])
            try:
                SCRIPTS[keeper.request["argv"][0]](keeper, *keeper.request["argv"][1:])
            except BrokenPipeError:
                pass
            os._exit(0)
        for descriptor in received:
            os.close(descriptor)


if __name__ == "__main__":
    main()
