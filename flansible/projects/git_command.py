"""Runs git for a project: confined, with that project's credential alone, and with nothing of the repository obeyed.

| what could run or reach further                | what keeps it from that                                           |
|------------------------------------------------|-------------------------------------------------------------------|
| `ext::`, `file`, another protocol of submodules| GIT_ALLOW_PROTOCOL has the one of the project's url               |
| hooks, fsmonitor                               | core.hooksPath is /dev/null; the mirror is bare                   |
| filters of .gitattributes                      | they are named there and defined in a configuration: ours has none|
| the service's git configuration and ssh keys   | GIT_CONFIG_NOSYSTEM, a HOME without files, `ssh -F none`          |
| a url or ref that is an option                 | `--` before them, and flansible.models.project_spec refuses both  |
| an address of this machine or a private network| flansible.projects.pinned_address, unless admin owns the project  |
| a prompt                                       | GIT_TERMINAL_PROMPT=0, BatchMode                                  |
| a bug of git's own                             | bubblewrap: nothing of this machine but the mirror can be written |

A private key is in an agent outside of the sandbox, which signs. A password is in memory, and git's helper reads it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from flansible.errors import ProjectError
from flansible.projects import pinned_address
from flansible.projects.git_configuration import CONFIGURATION
from flansible.projects.order import Order

_PASSED_ON = re.compile(
    r"PATH$|LANG$|LC_\w+$|TZ$|(?i:https?_proxy|all_proxy|no_proxy)$|SSL_CERT_(FILE|DIR)$|REQUESTS_CA_BUNDLE$|USER$|LOGNAME$"
)
_PRIVATE = 0o700
_AGENT_SECONDS = 5.0
_BLOCK = 512  # bytes, of ulimit
_SHOWN_LINES = 20


@dataclass
class GitRunner:
    """Runs git for one order. private: a folder of this run for small files; descriptors: that git inherits."""

    order: Order
    private: Path
    environment: dict[str, str]
    binds: list[str] = field(default_factory=list)
    descriptors: tuple[int, ...] = ()

    def run(
        self,
        *words: str,
        repository: Path | None = None,
        writable: Sequence[Path] = (),
        environment: dict[str, str] | None = None,
    ) -> bytes:
        """Runs git; returns its standard output. Raises ProjectError with its own words."""
        command = ["git", *words] if repository is None else ["git", f"--git-dir={repository}", *words]
        done = self.execute(command, writable, environment)
        if done.returncode != 0:
            said = words_of(done.stderr) or f"git {words[0]} ended with exit code {done.returncode}"
            if os.strerror(errno.EFBIG) in said:
                said = "the repository is larger than what a worker keeps (mirrors_bytes)"
            raise ProjectError(said)
        return done.stdout

    def dialled(self, url: str) -> tuple[str, dict[str, str]]:
        """Returns a remote's url for git, and variables beside: it dials what was checked. Raises ProjectError."""
        is_checked = self.order.public_only and protocol_of(url) != "file"
        return pinned_address.pinned(url, self.environment) if is_checked else (url, {})

    def succeeds(self, *words: str, repository: Path) -> bool:
        return self.execute(["git", f"--git-dir={repository}", *words]).returncode == 0

    def execute(
        self,
        command: list[str],
        writable: Sequence[Path] = (),
        environment: dict[str, str] | None = None,
        cwd: Path = Path("/"),
        is_offline: bool = False,
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a command in the sandbox. Raises ProjectError if it does not end in time."""
        try:
            return subprocess.run(
                [*self._sandbox(writable, cwd, is_offline), *self._limited(command)],
                env=self.environment | (environment or {}),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self.order.seconds,
                pass_fds=self.descriptors,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ProjectError(f"{command[0]} was ended: it took too long") from None
        except OSError as error:
            raise ProjectError(f"{command[0]} does not start: {error.strerror}") from None

    def _limited(self, command: list[str]) -> list[str]:
        """Limits each file that the command writes to the size of all that is kept: a remote does not say how much it
        will send, so nothing else would stop it before the disk is full."""
        most = max(self.order.bounds.bytes, self.order.bounds.mirror_bytes)
        # With the signal git would end without a word.
        limit = f"trap '' XFSZ; ulimit -f {most // _BLOCK} && exec \"$@\""
        return ["sh", "-c", limit, "sh", *command] if most else command

    def _sandbox(self, writable: Sequence[Path], cwd: Path, is_offline: bool) -> list[str]:
        if not self.order.sandbox:
            return []
        folder = str(self.order.own_folder)
        around = self.order.offline_sandbox if is_offline else self.order.sandbox
        words = [*around, "--ro-bind", folder, folder, *self.binds]
        if (copies := self.order.own_folder / "copies").is_dir():
            words += ["--tmpfs", str(copies)]  # what runs have written
        for path in (self.private / "home", *writable):
            words += ["--bind", str(path), str(path)]
        return [*words, "--die-with-parent", "--chdir", str(cwd), "--"]


@contextmanager
def prepared(order: Order, credential: dict[str, str]) -> Iterator[GitRunner]:
    """Yields what runs git for this order. credential: `user`, and `password` or `private_key`; or nothing."""
    with contextlib.ExitStack() as stack:
        private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flansible-git-")))
        (private / "home").mkdir(_PRIVATE)
        (private / "gitconfig").write_text(CONFIGURATION)
        kept = {name: value for name, value in os.environ.items() if _PASSED_ON.match(name)}
        git = GitRunner(
            order, private, {**kept, **_environment(order, private)}, ["--ro-bind", str(private), str(private)]
        )
        if os.path.isdir(path := order.url.removeprefix("file://")):
            git.binds += ["--ro-bind", path, path]
        ssh = _ssh_options(order, private)
        if key := credential.get("private_key"):
            agent = stack.enter_context(_agent(private, key))
            ssh += ["-o", f"IdentityAgent={agent}"]
        elif "password" in credential:
            git.descriptors = (stack.enter_context(_helper(git, order.url, credential)),)
        user = credential.get("user")
        if user and key:
            ssh += ["-l", user]
        git.environment["GIT_SSH_COMMAND"] = shlex.join(["ssh", *ssh])
        yield git


def _environment(order: Order, private: Path) -> dict[str, str]:
    return {
        "HOME": str(private / "home"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(private / "gitconfig"),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "GIT_ALLOW_PROTOCOL": protocol_of(order.url),
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "LC_ALL": "C.UTF-8",
    }


def protocol_of(url: str) -> str:
    """Returns git's name of the protocol of a url: `ssh` for `git@host:path`, `file` for a path."""
    if url.startswith("/"):
        return "file"
    scheme, found, _ = url.partition("://")
    return scheme if found else "ssh"


def host_of(url: str) -> str:
    """Returns the host of a url, with its port; empty for a path."""
    if "://" in url:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    return "" if url.startswith("/") else url.partition(":")[0].rpartition("@")[2].lower()


def _ssh_options(order: Order, private: Path) -> list[str]:
    options = [
        "-F",
        "none",
        "-a",
        "-x",
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=10",
        # A fetch whose connection is dead keeps others of this project waiting.
        "-o",
        "ServerAliveInterval=15",
        "-o",
        "PermitLocalCommand=no",
    ]
    options += ["-o", "StrictHostKeyChecking=yes", "-o", "IdentityFile=none"]
    known = private / "known_hosts"
    text = order.known_hosts
    if text is None:
        with contextlib.suppress(OSError):
            text = Path("~/.ssh/known_hosts").expanduser().read_text()
    known.write_text(text or "")
    return [*options, "-o", f"UserKnownHostsFile={known}"]


@contextmanager
def _agent(private: Path, key: str) -> Iterator[str]:
    """Runs an ssh-agent that has this key, outside of the sandbox; yields the path of its socket."""
    path = private / "agent"
    try:
        agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise ProjectError(f"ssh-agent does not start: {error.strerror}") from None
    try:
        give_up_at = time.monotonic() + _AGENT_SECONDS
        while not _answers(path):
            if agent.poll() is not None or time.monotonic() > give_up_at:
                raise ProjectError("ssh-agent does not start")
            time.sleep(0.005)
        added = subprocess.run(
            ["ssh-add", "-q", "-"],
            input=(key if key.endswith("\n") else key + "\n").encode(),
            env={**os.environ, "SSH_AUTH_SOCK": str(path), "SSH_ASKPASS_REQUIRE": "never"},
            capture_output=True,
            start_new_session=True,
            check=False,
        )
        if added.returncode != 0:
            raise ProjectError("the private key of the credential cannot be used")
        yield str(path)
    finally:
        agent.terminate()
        agent.wait()


def _answers(path: Path) -> bool:
    # Its file is there a moment before anybody listens at it.
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextmanager
def _helper(git: GitRunner, url: str, credential: dict[str, str]) -> Iterator[int]:
    """Has git read user and password from memory, for the host of this url alone; yields the descriptor to inherit."""
    descriptor = os.memfd_create("credential")
    try:
        text = f"username={credential.get('user') or 'git'}\npassword={credential['password']}\n"
        os.write(descriptor, text.encode())
        parts = urlsplit(url)
        helper = f'!f() {{ test "$1" = get && cat /proc/self/fd/{descriptor}; }}; f'
        quoted = helper.replace("\\", "\\\\").replace('"', '\\"')
        section = f'[credential "{parts.scheme}://{parts.netloc.rpartition("@")[2]}"]\n\thelper = "{quoted}"\n'
        (git.private / "gitconfig").write_text(CONFIGURATION + section)
        yield descriptor
    finally:
        os.close(descriptor)


def words_of(stderr: bytes) -> str:
    """Returns what git said, in lines of its own."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", stderr.decode(errors="replace"))]
    return "\n".join([line for line in lines if line][-_SHOWN_LINES:])
