"""A project whose host must have a public address: git dials the one that was checked, not what it would look up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.network import require_network

TOP = Path(__file__).parents[2]
# In a network and with an /etc/hosts of its own. The service's look-up finds a public address, which this machine has
# here; git itself would find one that nobody has.
SCRIPT = """
import json, shutil, socket, subprocess, sys, tempfile
from contextlib import ExitStack
from pathlib import Path
from flansible.config import Settings
from flansible.models import ProjectRun
from flansible.projects import prepare
from flansible.system import addresses
from flansible.worker import project_tasks
from tests.helpers import repositories, servers

PUBLIC, NAME = "93.184.216.34", "git.example.org"
kind, folder = sys.argv[1], Path(sys.argv[2])
(folder / "hosts").write_text(f"127.0.0.1 localhost\\n192.0.2.9 {NAME}\\n")
for words in (
    ("ip", "link", "set", "lo", "up"),
    ("ip", "address", "add", f"{PUBLIC}/32", "dev", "lo"),
    ("mount", "--bind", str(folder / "hosts"), "/etc/hosts"),
):
    subprocess.run(words, check=True)
real = addresses.checked_addresses

def look_up(host, *words, **named):
    return socket.getaddrinfo(PUBLIC if host == NAME else host, *words, **named)

def checked_before(*words, **named):
    return real(*words, **named, look_up=look_up)

with ExitStack() as stack:
    repository = repositories.Repository.make(folder / "shop")
    commit, known, credential = repository.git("rev-parse", "HEAD"), None, {}
    if kind == "git":
        url = stack.enter_context(repositories.git_daemon(folder, "0.0.0.0")) + "/shop"
    elif kind == "http":
        credential = {"user": "deploy", "password": "pass"}
        url = stack.enter_context(repositories.git_http(folder, "deploy", "pass", "0.0.0.0")) + "/shop/.git"
    else:
        own = Path(tempfile.mkdtemp(prefix="fl-ssh-"))
        ssh = servers.sshd(own, "0.0.0.0")
        stack.callback(shutil.rmtree, own)
        stack.callback(servers.remove_users, ssh.users)
        stack.callback(ssh.server.stop)
        subprocess.run(["chown", "-R", ssh.users[0], str(repository.folder)], check=True)
        credential = {"private_key": ssh.private_key}
        url = f"ssh://{ssh.users[0]}@0.0.0.0:{ssh.server.port}{repository.folder}"
        known = f"[{NAME}]:{ssh.server.port} {' '.join(ssh.host_key.split()[:2])}\\n"
    project = ProjectRun(
        name="shop", url=url.replace("0.0.0.0", NAME), ref="main", public_only=True, known_hosts=known
    )
    orders = project_tasks.order_of("resolve", project, Settings(data_dir=folder / "data"), 10)
    addresses.checked_addresses = checked_before
    checked = prepare.answer(orders, dict(credential))
    addresses.checked_addresses = real
    refused = prepare.answer(orders, dict(credential))
    unchecked = prepare.answer({**orders, "public_only": False}, dict(credential))
    if kind == "http":
        addresses.checked_addresses = checked_before
        elsewhere = url.replace("0.0.0.0", NAME).replace("/shop", "/elsewhere/shop")
        prepare.answer({**orders, "url": elsewhere}, dict(credential))
    redirected = [host for host, _ in repositories.seen if host.startswith("localhost")]
    print(json.dumps([commit, checked, refused, unchecked, redirected]))
"""


@pytest.mark.parametrize("kind", ("git", "http", "ssh"))
def test_a_name_whose_address_changes_after_the_check_is_fetched_from_where_it_was_checked(
    kind: str, open_folder: Path
) -> None:
    require_network()
    words = ["unshare", "--net", "--mount", sys.executable, "-c", SCRIPT, kind, str(open_folder)]
    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    commit, checked, refused, unchecked, redirected = json.loads(done.stdout)
    assert checked.get("commit") == commit, checked
    assert "192.0.2.9, which is not a public one" in refused["message"]
    assert unchecked["error"] == "unreachable"  # where git itself would have gone
    assert redirected == []
