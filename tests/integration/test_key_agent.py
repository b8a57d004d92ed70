"""The agent of a stored key: what it signs, for whom, and what it refuses."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from flansible.errors import RunnerError
from flansible.worker.key_agent import KeyAgent
from flansible.worker.signing_key import read_string, string
from tests.helpers.waiting import eventually, require_program

KINDS = {
    "ed25519": ("-t", "ed25519"),
    "rsa": ("-t", "rsa", "-b", "2048"),
    "rsa in PEM": ("-t", "rsa", "-b", "2048", "-m", "PEM"),
    "ecdsa 256": ("-t", "ecdsa", "-b", "256"),
    "ecdsa 384": ("-t", "ecdsa", "-b", "384"),
    "ecdsa 521": ("-t", "ecdsa", "-b", "521"),
}
PASSPHRASE = "a phrase ü"
LOGIN = string(b"session") + b"\x32" + string(b"deploy") + string(b"ssh-connection") + string(b"publickey") + b"\1"


def new_key(folder: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    path = folder / "key"
    command = [require_program("ssh-keygen"), "-q", *KINDS[kind], "-N", passphrase, "-f", str(path)]
    subprocess.run(command, check=True)
    return path


@contextmanager
def served(key: Path, folder: Path, passphrase: str | None = None) -> Iterator[str]:
    """An agent with this key, whose socket this process has made: so it serves what is below it. Its path."""
    agent = KeyAgent.of(key.read_text(), passphrase)
    path = str(folder / "agent")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(16)
        agent.serve(os.dup(listener.fileno()))
    try:
        yield path
    finally:
        agent.close()


def ask(path: str, *messages: bytes) -> list[bytes]:
    """The answers to these messages, on one connection; those that came until it was closed."""
    answers: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as client, suppress(ConnectionResetError, BrokenPipeError):
        client.connect(path)  # as ssh does: one with a time limit fails at once where the backlog is full
        client.settimeout(10)
        for message in messages:
            client.sendall(string(message))
        with client.makefile("rb") as file:
            for _ in messages:
                head = file.read(4)
                if len(head) < 4:
                    break
                answers.append(file.read(struct.unpack(">I", head)[0]))
    return answers


def sign(blob: bytes, data: bytes, flags: int = 0) -> bytes:
    return b"\x0d" + string(blob) + string(data) + struct.pack(">I", flags)


def blob_of(path: str) -> bytes:
    (answer,) = ask(path, b"\x0b")
    assert answer[:5] == b"\x0c\0\0\0\1"
    return read_string(answer, 5)[0]


def verify(line: bytes, signature: bytes, data: bytes) -> bytes:
    """Verifies a signature as a server would; the name of its algorithm."""
    name, position = read_string(signature, 0)
    raw, _ = read_string(signature, position)
    public = serialization.load_ssh_public_key(line)
    if isinstance(public, ed25519.Ed25519PublicKey):
        public.verify(raw, data)
    elif isinstance(public, rsa.RSAPublicKey):
        digest = {b"rsa-sha2-256": hashes.SHA256(), b"rsa-sha2-512": hashes.SHA512()}[name]
        public.verify(raw, data, padding.PKCS1v15(), digest)
    else:
        assert isinstance(public, ec.EllipticCurvePublicKey)
        first, position = read_string(raw, 0)
        second, _ = read_string(raw, position)
        digests = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
        encoded = encode_dss_signature(int.from_bytes(first, "big"), int.from_bytes(second, "big"))
        public.verify(encoded, data, ec.ECDSA(digests[public.curve.key_size]))
    return name


@pytest.mark.parametrize("kind", KINDS)
def test_a_login_is_signed_with_a_key_of_each_kind(kind: str, tmp_path: Path) -> None:
    key = new_key(tmp_path, kind)
    line = key.with_suffix(".pub").read_bytes()
    with served(key, tmp_path) as path:
        blob = blob_of(path)
        for flags in (4, 2) if kind.startswith("rsa") else (0, 0, 0):
            (answer,) = ask(path, sign(blob, LOGIN, flags))
            assert answer[:1] == b"\x0e"
            name = verify(line, read_string(answer, 1)[0], LOGIN)
            assert not kind.startswith("rsa") or name == (b"rsa-sha2-512" if flags == 4 else b"rsa-sha2-256")


def test_ssh_itself_lists_it_and_cannot_change_it(tmp_path: Path) -> None:
    key = new_key(tmp_path)
    with served(key, tmp_path) as path:
        environ = {**os.environ, "SSH_AUTH_SOCK": path}

        def add(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [require_program("ssh-add"), *arguments]
            return subprocess.run(command, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL)

        assert add("-L").stdout.split()[:2] == key.with_suffix(".pub").read_text().split()[:2]
        for arguments in ((str(key),), ("-D",), ("-d", str(key)), ("-s", "/usr/lib/x.so")):
            assert add(*arguments).returncode != 0, arguments
        assert add("-L").returncode == 0
        (tmp_path / "file").write_text("text")
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", f"{key}.pub", str(tmp_path / "file")]
        key.unlink()
        signed = subprocess.run(command, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert signed.returncode != 0 and not (tmp_path / "file.sig").exists(), "a file is no login"


def test_nothing_but_logins_with_this_key_is_signed(tmp_path: Path) -> None:
    key = new_key(tmp_path)
    with served(key, tmp_path) as path:
        blob = blob_of(path)
        other = string(b"ssh-ed25519") + string(b"x" * 32)
        refused = [
            sign(blob, b"anything"),
            sign(blob, b""),
            sign(blob, b"SSHSIG" + LOGIN),
            sign(blob, LOGIN.replace(b"publickey", b"hostbased")),
            sign(blob, LOGIN.replace(b"\x32", b"\x33", 1)),
            sign(other, LOGIN),
            b"\x0d",
            b"\x0d\xff\xff\xff\xff",
            sign(blob, LOGIN)[:-2],
            *(bytes([number]) + b"x" * 20 for number in range(256) if number not in (11, 13)),
        ]
        assert set(ask(path, *refused)) == {b"\x05"}
        text = b"".join(ask(path, b"\x0b", sign(blob, LOGIN), b"\x11"))
        assert key.read_bytes()[40:80] not in text


@pytest.mark.parametrize("data", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\1\0\1x"])
def test_a_message_of_no_length_or_too_long_ends_its_connection_only(data: bytes, tmp_path: Path) -> None:
    with served(new_key(tmp_path), tmp_path) as path:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(path)
            client.sendall(data)
            assert client.recv(10) == b""
        assert blob_of(path)


def test_a_client_that_sends_slowly_or_reads_nothing_holds_up_no_other(tmp_path: Path) -> None:
    with served(new_key(tmp_path), tmp_path) as path:
        slow = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        for client in slow:
            client.connect(path)
            client.sendall(b"\0\0")
        assert blob_of(path)
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(path)
            deaf.settimeout(2)
            with pytest.raises(OSError):  # closed by the agent, or its buffer is full
                while True:
                    deaf.sendall(string(b"\x0b") * 1000)
        assert blob_of(path)
        for client in slow:
            client.close()


def test_a_process_that_is_not_below_the_keeper_is_not_served(tmp_path: Path) -> None:
    """Here the keeper is a child of ours: so we are outside, and what it starts is inside."""
    key = new_key(tmp_path)
    agent = KeyAgent.of(key.read_text(), None)
    ours, theirs = socket.socketpair()
    path = str(tmp_path / "agent")
    keeper = subprocess.Popen(
        [sys.executable, "-c", _KEEPER, path, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert keeper.stdin and keeper.stdout
    theirs.close()
    _, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
    agent.serve(listener)
    try:
        assert ask(path, b"\x0b") == []
        keeper.stdin.write("ask\n")
        keeper.stdin.flush()
        assert keeper.stdout.readline() == "12\n", "its child is served, also when it has a parent no more"
        assert ask(path, b"\x0b") == []
    finally:
        agent.close()
        keeper.communicate()
        ours.close()


_KEEPER = """
import os, socket, struct, subprocess, sys
path, channel = sys.argv[1], socket.socket(fileno=int(sys.argv[2]))
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(path)
    listener.listen()
    socket.send_fds(channel, [b"x"], [listener.fileno()])
channel.close()
sys.stdin.readline()
child = (
    "import socket,sys; client = socket.socket(socket.AF_UNIX); client.connect(sys.argv[1]);"
    "client.sendall(bytes([0,0,0,1,11])); print(client.recv(5)[4], flush=True)"
)
subprocess.run([sys.executable, "-c", child, path])
"""


def test_only_the_first_listening_unix_socket_is_served(tmp_path: Path) -> None:
    agent = KeyAgent.of(new_key(tmp_path).read_text(), None)
    file = os.open(tmp_path / "key", os.O_RDONLY)
    agent.serve(file)
    with socket.socket() as network:
        agent.serve(os.dup(network.fileno()))
    paths = [str(tmp_path / name) for name in ("one", "two")]
    for path in paths:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            agent.serve(os.dup(listener.fileno()))
    assert blob_of(paths[0])
    with pytest.raises(OSError):
        ask(paths[1], b"\x0b")
    agent.close()


def test_an_agent_ends_with_its_connections(tmp_path: Path) -> None:
    with served(new_key(tmp_path), tmp_path) as path:
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        client.settimeout(10)
        assert blob_of(path)
    assert client.recv(1) == b""
    client.close()
    eventually(lambda: not any(thread.name == "key-agent" for thread in threading.enumerate()))


@pytest.mark.parametrize("kind", ["ed25519", "rsa in PEM"])
def test_an_encrypted_key_is_opened_with_its_passphrase(kind: str, tmp_path: Path) -> None:
    key = new_key(tmp_path, kind, PASSPHRASE)
    with served(key, tmp_path, PASSPHRASE) as path:
        assert blob_of(path)
    with pytest.raises(RunnerError, match="private_key_passphrase is not the passphrase") as caught:
        KeyAgent.of(key.read_text(), "wrong")
    assert PASSPHRASE not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"]
)
def test_what_is_no_key_is_said_without_it(text: str) -> None:
    with pytest.raises(RunnerError, match="damaged") as caught:
        KeyAgent.of(text, None)
    assert "c2VjcmV0" not in str(caught.value)
