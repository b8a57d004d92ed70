"""Git repositories for tests of projects: made, committed to, and served by git's own daemon."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.helpers.ports import free_port
from tests.helpers.services import LOCAL, write
from tests.helpers.waiting import eventually, require_program

PLAY = "- hosts: all\n  gather_facts: false\n  tasks:\n    - debug: msg={}\n"
INVENTORY = f"[web]\none {LOCAL}\n"
# What a repository has that requires a collection of a server of Galaxy.
REQUIRES_TOOLS = {"requirements.yml": "collections:\n- team.tools\n"}


@dataclass(frozen=True)
class Repository:
    """A repository with a checkout, in which tests commit."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Repository:
        """A repository with a playbook and an inventory, on branch main."""
        shutil.copytree(_made_once(), folder)
        return cls(folder)

    def commit_lfs(self, files: dict[str, str]) -> str:
        """Commits these files with Git LFS; the commit."""
        require_program("git-lfs")
        self.git("lfs", "install", "--local")
        return self.commit({".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", **files})

    def git(self, *words: str, data: bytes | None = None) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]
        done = subprocess.run(["git", *identity, *words], cwd=self.folder, input=data, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def commit(self, files: dict[str, str], message: str = "more") -> str:
        """Writes these files and commits everything; the commit."""
        for name, text in files.items():
            write(self.folder / name, text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")


def collection(version: str = "1.0.0") -> dict[str, str]:
    """The files that make a folder the collection team.tools."""
    about = {"namespace": "team", "name": "tools", "version": version, "authors": ["t"], "readme": "README.md"}
    return {"galaxy.yml": json.dumps(about), "README.md": "x"}


@cache
def _made_once() -> Path:
    """Copied by each `make`, which would start git four times; it goes with the TMPDIR of this process."""
    made = Repository(Path(tempfile.mkdtemp(prefix="fl-git-")) / "made")
    made.folder.mkdir()
    made.git("init", "-q", "-b", "main", "--template=")
    made.commit({"site.yml": PLAY.format("first"), "inventories/dev": INVENTORY})
    return made.folder


@contextmanager
def git_daemon(base: Path, address: str = "127.0.0.1") -> Iterator[str]:
    """Serves all repositories below a folder; yields the url that their names are joined to."""
    port = free_port()
    words = [
        "git",
        "daemon",
        "--export-all",
        "--reuseaddr",
        f"--base-path={base}",
        f"--listen={address}",
        f"--port={port}",
    ]
    environment = {
        **os.environ,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
    # In a session of its own: it forks for each connection.
    daemon = subprocess.Popen(
        [*words, str(base)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"git://{address}:{port}"
    try:
        eventually(lambda: _answers(url, base), 20)
        yield url
    finally:
        daemon.terminate()
        daemon.wait(10)


def _answers(url: str, base: Path) -> bool:
    name = next(path.name for path in base.iterdir() if (path / ".git").exists() or (path / "HEAD").exists())
    return subprocess.run(["git", "ls-remote", f"{url}/{name}"], capture_output=True, check=False).returncode == 0


@contextmanager
def git_http(base: Path, user: str, password: str, address: str = "127.0.0.1") -> Iterator[str]:
    """Serves all repositories below a folder over HTTP, to who has this password; yields the url."""
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path.startswith("/elsewhere/"):
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/{self.path[11:]}")
                self.end_headers()
                return
            given = self.headers.get("Authorization")
            seen.append((self.headers.get("Host", ""), given))
            if given != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            self.answer(path, query)

        do_POST = do_GET

        def answer(self, path: str, query: str) -> None:
            repository, found, what = path.partition("/info/lfs/objects/")
            if found:
                self.answer_lfs(f"{base}{repository}/lfs/objects", what)
                return
            environment = {
                **os.environ,
                "GIT_PROJECT_ROOT": str(base),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "REMOTE_USER": user,
            }
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            done = subprocess.run(
                ["git", "http-backend"], env=environment, input=data, capture_output=True, check=False
            )
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def answer_lfs(self, folder: str, what: str) -> None:
            """Stands in for an LFS server: its batch API, and the objects at addresses below."""
            if what == "batch":
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["objects"]
                here = f"http://{self.headers['Host']}{self.path.removesuffix('batch')}"
                objects = [{**one, "actions": {"download": {"href": here + one["oid"]}}} for one in asked]
                body = json.dumps({"transfer": "basic", "objects": objects}).encode()
            else:
                body = Path(folder, what[:2], what[2:4], what).read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.git-lfs+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    seen.clear()
    with ThreadingHTTPServer((address, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://{address}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(10)


# The host and the credential of each request to `git_http`.
seen: list[tuple[str, str | None]] = []
