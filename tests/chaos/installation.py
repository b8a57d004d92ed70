"""An installation on machines of its own (tests/helpers/network.py): two web servers, three workers of two queues,
Redis, RabbitMQ, PostgreSQL, a git server over ssh and HTTP, and hosts with sshd.

They share the queue and their configuration, and no file: of the folder that has one folder for each machine, a process
of Flansible sees its own machine's alone (`_OWN_DISK`). The test sits at a desk of its own in the same network.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from flansible.sealing import read_or_make_key
from tests.helpers import servers
from tests.helpers.network import Network
from tests.helpers.postgresql import PostgresqlServer
from tests.helpers.repositories import Repository, git_http
from tests.helpers.services import ADMIN, DEV, SCRIPTS, flansible_environ, write
from tests.helpers.waiting import eventually, require_program

WORKERS = {"w1": "default", "w2": "default", "w3": "dmz"}
WEBS = ("web1", "web2")
HOSTS = ("host1", "host2")
Auth = tuple[str, str]

_PASSWORD = "word-for-all-servers"
_WEB_PORT = 3000
_SLOTS = 4
_ANSWER_SECONDS = 15
_ACCEPT_SECONDS = 180
_FINAL_SECONDS = 300
_END_SECONDS = 20
_SHOWN_OF_LOG = 20_000  # characters, of each log when a test has failed
# $1: the machine's own folder, $2: that of all machines.
_OWN_DISK = """
mount --bind "$1" /mnt && mount -t tmpfs -o mode=755 tmpfs "$2" && mkdir "$1" && mount --move /mnt "$1" || exit 1
cd "$1" && shift 2 && exec "$@"
"""
# What the git server runs for each login; it holds back its answers while there is such a file.
_GIT_SHELL = """\
#!/bin/sh
while [ -e "$0.held" ]; do touch "$0.asked"; sleep 0.1; done
exec git-shell -c "$SSH_ORIGINAL_COMMAND"
"""
_PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.raw: echo "from $SSH_CONNECTION"
      register: login
    - ansible.builtin.debug:
        msg: >-
          playbook {number}, variables {{{{ of_variables }}}}, inventory {{{{ of_inventory }}}}, {{{{ login.stdout }}}}
"""
# A link that is cut for some seconds is no host that is away.
_SSH = "-o UserKnownHostsFile={{ inventory_dir }}/known_hosts"


class Project:
    """A repository of the git server, which is pushed to from a developer's checkout.

    numbers: what the files of each commit say.
    """

    def __init__(self, name: str, desk: Path, server: Path, hosts: dict[str, str], known_hosts: str) -> None:
        self.name = name
        self.numbers: dict[str, int] = {}
        self._count = itertools.count(1)
        lines = "".join(f"{host} ansible_host={address}\n" for host, address in hosts.items())
        self._inventory = f'[all]\n{lines}[all:vars]\nansible_ssh_timeout=60\nansible_ssh_common_args="{_SSH}"\n'
        self._checkout = Repository.make(desk / name)
        self._checkout.commit({"inventories/known_hosts": known_hosts})
        self._bare = server / f"{name}.git"
        self._checkout.git("init", "-q", "--bare", "-b", "main", str(self._bare))

    def push(self, tag: str = "") -> str:
        """Commits the next number to each of the files, and pushes; returns the commit."""
        number = next(self._count)
        files = {
            "site.yml": _PLAYBOOK.format(number=number),
            "group_vars/all.yml": f"of_variables: {number}\n",
            "inventories/hosts": f"{self._inventory}of_inventory={number}\n",
        }
        commit = self._checkout.commit(files)
        self.numbers[commit] = number
        if tag:
            self._checkout.git("tag", tag)
        self._checkout.git("push", "-q", str(self._bare), "main", *([tag] if tag else []))
        return commit


class Installation:
    def __init__(self, network: Network, root: Path) -> None:
        self.root = root
        self.disks = root / "machines"
        names = ("desk", "redis", "rabbitmq", "postgres", "git", *WEBS, *WORKERS, *HOSTS)
        self.machines = {name: network.machine() for name in names}
        for name in names:
            (self.disks / name).mkdir(parents=True)
        self._stack = ExitStack()
        self._clients = {
            (web, auth): httpx.Client(
                base_url=f"http://{self.machines[web].address}:{_WEB_PORT}", auth=auth, timeout=_ANSWER_SECONDS
            )
            for web in WEBS
            for auth in (ADMIN, DEV)
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self._stack.enter_context(self.machines["desk"].inside())
        self._start_servers()
        for name in (*WEBS, *WORKERS):
            self._configure(name)
        for name in WEBS:
            self._flansible(name, "web")
        for name, queues in WORKERS.items():
            self._flansible(name, "worker", "--name", name, "--queues", queues)
        self._start_git()
        for web in WEBS:
            eventually(lambda web=web: self._is_ready(web), 120)
        secrets = {
            "hosts": {"kind": "ssh", "user": "root", "private_key": self._key("hosts")},
            "of-ssh": {"kind": "git", "user": "root", "private_key": self._key("git")},
            "of-http": {"kind": "git", "user": "deploy", "password": _PASSWORD},
        }
        for name, spec in secrets.items():
            self._define("credentials", name, spec)

    def stop(self) -> None:
        """Ends all of it; raises an AssertionError if a process of Flansible does not end by itself."""
        for client in self._clients.values():
            client.close()
        for process in self._processes.values():
            process.terminate()
        late = [name for name, process in self._processes.items() if not _ends(process)]
        self._stack.close()
        assert late == [], f"not ended within {_END_SECONDS} seconds"

    def print_logs(self) -> None:
        for log in sorted(self.root.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-_SHOWN_OF_LOG:]}")

    def project(self, name: str, protocol: str, **spec: Any) -> Project:
        """Makes a project with one commit pushed. protocol: `ssh` or `http`."""
        hosts = {host: self.machines[host].address for host in HOSTS}
        known = "".join(f"{address} {self._public(host)}" for host, address in hosts.items())
        made = Project(name, self.root / "desk", self.disks / "git", hosts, known)
        made.push()
        if protocol == "ssh":
            server = self.machines["git"].address
            spec |= {"url": f"ssh://root@{server}{self.disks / 'git'}/{name}.git"}
            spec |= {"known_hosts": f"{server} {self._public('git')}"}
        else:
            spec |= {"url": f"{self._git_url}/{name}.git"}
        self._define("projects", name, {"ref": "main", "credential": f"of-{protocol}", **spec})
        return made

    @contextmanager
    def held_answers(self) -> Iterator[Path]:
        """The git server lets users log in by ssh meanwhile, and says nothing; yields a file that is there once one
        has."""
        held, asked = (self.disks / "git" / f"shell.{word}" for word in ("held", "asked"))
        held.touch()
        try:
            yield asked
        finally:
            held.unlink()

    def client(self, web: str, auth: Auth = ADMIN) -> httpx.Client:
        return self._clients[web, auth]

    def submit(self, body: dict[str, Any], auth: Auth = ADMIN, first_web: int = 0) -> dict[str, Any]:
        """Has a run accepted once, by whichever web server answers; what it said. Refusals for now are not the end."""
        whole = {"playbook": "site.yml", "inventory": "inventories/hosts", "credentials": ["hosts"], **body}
        key = {"Idempotency-Key": f"run-{time.monotonic_ns()}-{threading.get_ident()}"}

        def post(web: str) -> httpx.Response:
            return self.client(web, auth).post("/api/ansibleplaybook", json=whole, headers=key)

        reply = self._answer(post, first_web, _ACCEPT_SECONDS)
        assert reply.status_code == 202, reply.text
        return dict(reply.json())

    def get(self, path: str, first_web: int = 0) -> httpx.Response:
        reply = self._answer(lambda web: self.client(web).get(path), first_web, _ACCEPT_SECONDS)
        assert reply.status_code == 200, reply.text
        return reply

    def status(self, task_id: str, first_web: int = 0) -> dict[str, Any]:
        return dict(self.get(f"/api/ansibletaskstatus/{task_id}", first_web).json())

    def output(self, task_id: str, first_web: int = 0) -> str:
        return self.get(f"/api/ansibletaskoutput/{task_id}", first_web).text

    def wait(self, task_id: str, first_web: int = 0) -> dict[str, Any]:
        def final() -> dict[str, Any] | None:
            status = self.status(task_id, first_web)
            return None if status["Status"] == "PROGRESS" else status

        found: dict[str, Any] = eventually(final, _FINAL_SECONDS)
        return found

    def trees(self, machine: str, project: str) -> set[str]:
        """The commits that a machine has."""
        folder = self.disks / machine / "data" / "projects" / project / "shown" / "trees"
        return {path.name for path in folder.glob("*")}

    def _answer(self, ask: Callable[[str], httpx.Response], first_web: int, seconds: float) -> httpx.Response:
        give_up_at = time.monotonic() + seconds
        for number in itertools.count(first_web):
            said = "no answer"
            with contextlib.suppress(httpx.HTTPError):
                reply = ask(WEBS[number % len(WEBS)])
                is_for_now = reply.status_code >= 500 or "idempotency_key_in_flight" in reply.text
                if not is_for_now:
                    return reply
                said = reply.text
            assert time.monotonic() < give_up_at, said
            time.sleep(0.3)
        raise AssertionError("unreachable")

    def _start_servers(self) -> None:
        for name in ("git", "hosts"):
            self._keygen(self.root / name)
        starts = (self._start_rabbitmq, self._start_postgresql, self._start_redis, self._start_sshds)
        with ThreadPoolExecutor(len(starts)) as pool:
            for started in [pool.submit(start) for start in starts]:
                started.result()

    def _start_redis(self) -> None:
        server = servers.redis(self.disks / "redis", _PASSWORD, self.machines["redis"].address)
        self._store = f"redis://:{_PASSWORD}@{server.address}:{server.port}/0"
        self._serve("redis", server)

    def _start_rabbitmq(self) -> None:
        node, mapper = servers.rabbitmq(self.disks / "rabbitmq", self.machines["rabbitmq"].address)
        self._broker = f"amqp://guest:guest@{node.address}:{node.port}//"
        self._serve("rabbitmq", mapper)
        self._serve("rabbitmq", node)

    def _start_postgresql(self) -> None:
        server = PostgresqlServer(self.machines["postgres"].address)
        self._stack.callback(server.remove)
        with self.machines["postgres"].inside():
            server.start()
            self._database = server.url(server.new_database())

    def _start_sshds(self) -> None:
        for name in HOSTS:
            self._serve(name, self._sshd(name, "hosts"))
        shell = write(self.disks / "git" / "shell", _GIT_SHELL)
        shell.chmod(0o755)
        self._serve("git", self._sshd("git", "git", f"ForceCommand {shell}\n"))

    def _start_git(self) -> None:
        with self.machines["git"].inside():
            address = self.machines["git"].address
            served = git_http(self.disks / "git", "deploy", _PASSWORD, address)
            self._git_url = self._stack.enter_context(served)

    def _serve(self, name: str, server: servers.Server) -> None:
        with self.machines[name].inside():
            server.start()
        self._stack.callback(server.stop)

    def _sshd(self, name: str, key: str, further: str = "") -> servers.Server:
        Path("/run/sshd").mkdir(exist_ok=True)
        folder, address = self.disks / name, self.machines[name].address
        self._keygen(folder / "host_key")
        config = write(
            folder / "sshd_config",
            f"Port 22\nListenAddress {address}\nHostKey {folder}/host_key\nAuthorizedKeysFile {self.root}/{key}.pub\n"
            f"PidFile none\nPermitRootLogin yes\nPasswordAuthentication no\nUsePAM no\nStrictModes no\n"
            f"MaxSessions 100\nMaxStartups 100\n{further}",
        )
        command = [require_program("/usr/sbin/sshd"), "-D", "-e", "-f", str(config)]
        return servers.Server(command, 22, folder, address=address)

    def _keygen(self, path: Path) -> None:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)

    def _key(self, name: str) -> str:
        return (self.root / name).read_text()

    def _public(self, machine: str) -> str:
        return (self.disks / machine / "host_key.pub").read_text()

    def _configure(self, name: str) -> None:
        folder = self.disks / name
        for part in ("home", "tmp", "data"):
            (folder / part).mkdir()
        # Even folders of playbooks are elsewhere on each machine.
        write(folder / f"playbooks-of-{name}" / "other.yml", "[]\n")
        write(
            folder / "config.ini",
            f"[Default]\nCELERY_BROKER_URL = {self._broker}\nCELERY_RESULT_BACKEND = {self._store}\n"
            f"DATABASE_URL = {self._database}\nFlask_tcp_ip = {self.machines[name].address}\n"
            f"Flask_tcp_port = {_WEB_PORT}\nplaybook_root = playbooks-of-{name}\ndata_dir = data\n"
            f"secret_key_file = secret.key\nworker_concurrency = {_SLOTS}\nlog_level = info\n"
            "archive_after_seconds = 1\n",
        )
        read_or_make_key(self.root / "secret.key")
        shutil.copy(self.root / "secret.key", folder / "secret.key")
        if name in WEBS:
            write(folder / "rbac.json", json.dumps({"rbac": [_user(ADMIN), _user(DEV)]})).chmod(0o600)

    def _flansible(self, name: str, *words: str) -> None:
        folder = self.disks / name
        command = ["sh", "-c", _OWN_DISK, "sh", str(folder), str(self.disks), str(SCRIPTS / "flansible"), *words]
        environ = {**flansible_environ(), "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        with (self.root / f"{name}.log").open("wb") as log:
            self._processes[name] = self.machines[name].popen(command, cwd="/", env=environ, stdout=log, stderr=log)

    def _is_ready(self, web: str) -> bool:
        try:
            reply = self.client(web).get("/api/health")
        except httpx.HTTPError:
            return False
        queues = {found["queue"]: len(found["workers"]) for found in reply.json().get("queues", [])}
        return reply.status_code == 200 and queues == {"default": 2, "dmz": 1}

    def _define(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        reply = self.client(WEBS[0]).put(f"/api/{kind}/{name}", json=spec)
        assert reply.status_code in (200, 201), reply.text


def _user(auth: Auth) -> dict[str, Any]:
    user = {"user": auth[0], "password": auth[1], "inventories": []}
    if auth == ADMIN:
        return user
    names = [f"p{number}" for number in range(5)]
    inventories = [f"{name}:inventories/hosts" for name in names]
    projects = [{"name": name, "refs": ["v*"]} for name in names]
    own = {"inventories": inventories, "projects": projects, "queues": {"dmz": inventories}, "credentials": ["hosts"]}
    return {**user, **own}


def _ends(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


@contextmanager
def installation() -> Iterator[Installation]:
    root = Path(tempfile.mkdtemp(prefix="fl-net-"))
    with Network() as network:
        made = Installation(network, root)
        try:
            made.start()
            yield made
        except BaseException:
            made.print_logs()
            raise
        finally:
            for machine in made.machines.values():
                machine.heal()
            made.stop()
    shutil.rmtree(root)
