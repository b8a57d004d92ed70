"""An ssh agent for one run, in the worker: it signs logins with a stored key, and never gives the key away.

The run's keeper makes the socket where the run finds it, in the sandbox, and hands over the listening end (the frame
`started`). So the key stays outside: what the run can do is ask for the public key, and for the signature of a login.
Other requests of the agent protocol are refused, and other data than that of a login (RFC 4252, section 7): a
signature of a file or of a commit is no use that was granted. Served are processes below that keeper alone, not those
of another run that shares the sandbox. One thread for each agent; used by the supervisor.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Self

from flansible.errors import RunnerError
from flansible.models import Secrets, Step
from flansible.system import private_key_files
from flansible.worker.outcome import WITHOUT_END
from flansible.worker.signing_key import SigningKey, read_string, string

log = logging.getLogger(__name__)

_FAILURE, _IDENTITIES_ANSWER, _SIGN_RESPONSE = 5, 12, 14
_REQUEST_IDENTITIES, _SIGN_REQUEST = 11, 13
_USERAUTH_REQUEST = 50
_METHODS = (b"publickey", b"publickey-hostbound-v00@openssh.com")
_MAX_MESSAGE_BYTES = 64 * 1024
_MAX_CONNECTIONS = 1024
_READ_BYTES = 16 * 1024
_CREDENTIALS = struct.Struct("3i")
_MAX_DEPTH = 64  # of processes between an ssh and its keeper


class KeyAgent:
    """Serves one key from `serve` to `close`."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._wakeup, self._wake = socket.socketpair()
        self._thread: threading.Thread | None = None

    @classmethod
    def of(cls, text: str, passphrase: str | None) -> Self:
        """Raises RunnerError, without the key, when it cannot be used."""
        if passphrase is not None:
            text = _decrypted(text, passphrase)
        try:
            return cls(SigningKey.parse(text))
        except ValueError as error:
            raise RunnerError(f"the stored private_key cannot be used: {error}") from None

    @property
    def public_key(self) -> str:
        """The public key as a line of authorized_keys."""
        return self._key.public_line

    def serve(self, listener: int) -> None:
        """Serves on the listening socket with this descriptor, which it takes over. The first one counts."""
        try:
            taken = socket.socket(fileno=listener)
        except OSError:
            os.close(listener)
            return
        if self._thread is not None or taken.family != socket.AF_UNIX:
            taken.close()
            return
        self._thread = threading.Thread(target=self._run, args=(taken,), name="key-agent", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the agent and all its connections."""
        self._wake.close()
        if self._thread is not None:
            self._thread.join()
        self._wakeup.close()

    def _run(self, listener: socket.socket) -> None:
        with listener, selectors.DefaultSelector() as selector, contextlib.ExitStack() as connections:
            try:
                keeper = _peer(listener)
                listener.setblocking(False)
                selector.register(listener, selectors.EVENT_READ, None)
                selector.register(self._wakeup, selectors.EVENT_READ, None)
                open_now: set[_Connection] = set()
                connections.callback(_close_all, open_now)
                while True:
                    for found, _ in selector.select():
                        if found.fileobj is self._wakeup:
                            return
                        if found.fileobj is listener:
                            _accept(listener, keeper, selector, open_now)
                        elif not found.data.answer(self._key):
                            selector.unregister(found.fileobj)
                            open_now.discard(found.data)
                            found.data.close()
            except OSError as error:
                log.warning("an ssh agent has ended early: %s", error)


@contextlib.contextmanager
def agent_for(step: Step, secrets: Secrets | None) -> Iterator[KeyAgent | None]:
    """Opens the agent for the key of a credential, if there is one and the step connects to hosts.

    Raises RunnerError.
    """
    is_needed = step.program not in WITHOUT_END and step.listing is None
    if secrets is None or secrets.agent_key is None or not is_needed:
        yield None
        return
    agent = KeyAgent.of(secrets.agent_key, secrets.agent_key_passphrase)
    try:
        yield agent
    finally:
        agent.close()


class _Connection:
    """One client: what it has sent of its next message, and what it has not taken of the answers."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self._received = bytearray()

    def close(self) -> None:
        self.client.close()

    def answer(self, key: SigningKey) -> bool:
        """Reads, and answers the messages that are complete; False when the connection is over."""
        try:
            data = self.client.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._received += data
        try:
            while len(self._received) >= 4:
                (length,) = struct.unpack_from(">I", self._received)
                if not 0 < length <= _MAX_MESSAGE_BYTES:
                    return False
                if len(self._received) < 4 + length:
                    break
                message = bytes(self._received[4 : 4 + length])
                del self._received[: 4 + length]
                reply = _reply(message, key)
                # A client that does not read its answer, of at most some kilobytes, is none of ssh's.
                if self.client.send(string(reply)) < len(reply) + 4:
                    return False
        except OSError:
            return False
        return bool(data)


def _close_all(connections: set[_Connection]) -> None:
    for one in connections:
        one.close()


def _accept(listener: socket.socket, keeper: int, selector: selectors.BaseSelector, open_now: set[_Connection]) -> None:
    try:
        client, _ = listener.accept()
    except (BlockingIOError, ConnectionError):
        return
    if len(open_now) >= _MAX_CONNECTIONS or not _is_below(_peer(client), keeper):
        client.close()
        return
    client.setblocking(False)
    connection = _Connection(client)
    open_now.add(connection)
    selector.register(client, selectors.EVENT_READ, connection)


def _reply(message: bytes, key: SigningKey) -> bytes:
    try:
        if message[0] == _REQUEST_IDENTITIES:
            return bytes([_IDENTITIES_ANSWER]) + struct.pack(">I", 1) + string(key.blob) + string(b"")
        if message[0] == _SIGN_REQUEST:
            blob, position = read_string(message, 1)
            data, position = read_string(message, position)
            (flags,) = struct.unpack_from(">I", message, position)
            if blob == key.blob and _is_login(data):
                return bytes([_SIGN_RESPONSE]) + string(key.sign(data, flags))
    except (ValueError, struct.error):
        pass  # malformed, or a signature that this kind of key has not
    return bytes([_FAILURE])


def _is_login(data: bytes) -> bool:
    """Whether this is what ssh has signed to log in: a session id, then the request of the user with this key."""
    _, position = read_string(data, 0)
    if data[position : position + 1] != bytes([_USERAUTH_REQUEST]):
        return False
    _, position = read_string(data, position + 1)
    service, position = read_string(data, position)
    method, _ = read_string(data, position)
    return service == b"ssh-connection" and method in _METHODS


def _peer(connected: socket.socket) -> int:
    """Returns the process at the other end, as numbered here; of a listening socket the one that made it listen."""
    pid, _, _ = _CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(pid)


def _is_below(pid: int, ancestor: int) -> bool:
    """Whether a process is the ancestor or has it among those that started it."""
    for _ in range(_MAX_DEPTH):
        if pid == ancestor:
            return True
        if pid <= 1 or (above := _parent(pid)) is None:
            return False
        pid = above
    return False


def _parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name of the program, in parentheses, may have any characters.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _decrypted(text: str, passphrase: str) -> str:
    descriptor, path = private_key_files.file_in_memory("private_key", text)
    try:
        if problem := private_key_files.decrypt(path, passphrase):
            raise RunnerError(f"the stored key cannot be used: {problem}")
        with open(path, encoding="ascii") as file:
            return file.read()
    finally:
        os.close(descriptor)
