"""Words that are secret, looked for everywhere else: what is told, logged, stored, and what other processes can see."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.helpers.ports import free_port
from tests.helpers.secrecy import Watch, files, stored
from tests.helpers.services import ADMIN, DEV, LOCAL, Service, lay_out, start_service, write
from tests.helpers.waiting import require_program

WORDS = {name: f"marker-{secrets.token_hex(10)}" for name in ("login", "ssh", "become", "vault", "key", "hushed")}
LOGIN = ("hush", WORDS["login"])
KEY = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{WORDS['key']}\n-----END OPENSSH PRIVATE KEY-----\n"
# The words that are given with the request are printed by what runs, whole and in pieces, and put into a fact.
PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Print what was given
      ansible.builtin.command: cat {folder}/words
      register: said
    - name: Print it as JSON
      ansible.builtin.debug:
        var: said
    - name: Print a part of a line
      ansible.builtin.shell: printf 'here it is:'; cat {folder}/words; sleep 1
    - name: Fail with it
      ansible.builtin.fail:
        msg: "{{{{ said.stdout }}}}"
      ignore_errors: true
    - name: Hushed
      ansible.builtin.command: cat {folder}/hushed
      no_log: true
"""


@pytest.fixture(scope="module")
def flower_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def quiet(flower_port: int) -> Iterator[Service]:
    root = Path(tempfile.mkdtemp(prefix="flansible_test_"))
    lay_out(root)
    users = json.loads((root / "rbac.json").read_text())
    users["rbac"].append({"user": LOGIN[0], "password": LOGIN[1], "inventories": ["inventories/dev"]})
    write(root / "rbac.json", json.dumps(users))
    write(root / "inventories/dev", f"dev1 {LOCAL}\n")
    given = [WORDS[name] for name in ("ssh", "become", "vault")]
    coded = base64.b64encode(WORDS["ssh"].encode()).decode()
    write(root / "playbooks/words", " ".join([*given, json.dumps({"key": KEY}), coded, *given]) + f"\n{KEY}")
    write(root / "playbooks/hush.yml", PLAYBOOK.format(folder=root / "playbooks"))
    write(root / "playbooks/hushed", WORDS["hushed"])
    shown = {"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.shell": SHOW_DECRYPTED_KEY}]}
    shown["tasks"] += [{"ansible.builtin.shell": SHOW_DECRYPTED_KEY, "register": "said"}, {"debug": {"var": "said"}}]
    write(root / "playbooks/show.yml", json.dumps([shown]))
    running = start_service(root, f"flower_tcp_port = {flower_port}\nlog_level = debug\n", ("--flower",))
    yield running
    assert running.stop() < 10
    shutil.rmtree(root)


@pytest.mark.by_day(1)
@pytest.mark.parametrize("login", [ADMIN, LOGIN], ids=["admin", "another"])
def test_no_secret_is_told_logged_stored_or_shown(login: tuple[str, str], quiet: Service, flower_port: int) -> None:
    body = {"playbook_dir": ".", "playbook": "hush.yml", "inventory": "../inventories/dev", "verbose_level": 4}
    body |= {"connection_password": WORDS["ssh"], "become_password": WORDS["become"], "private_key": KEY}
    body |= {"vault_password": {"default": WORDS["vault"]}}
    watch = Watch()
    looking = threading.Thread(target=watch.look)
    looking.start()
    try:
        task_id = quiet.submit("ansibleplaybook", body, login)
        status = quiet.wait(task_id, login)
    finally:
        watch.over.set()
        looking.join()
    output = quiet.output(task_id, login)
    assert status["Status"] == "SUCCESS" and "here it is:*" in output, output
    assert watch.rounds > 5 and any("flansible.runner.forkserver" in line for line in watch.seen)
    places = {
        "status": json.dumps(status),
        "output": output,
        "output as a page": quiet.client(login).get(f"/api/ansibletaskoutput/{task_id}?format=html").text,
        "result": quiet.client(login).get(f"/api/ansibletaskresult/{task_id}").text,
        "events": quiet.client(login).get(f"/api/ansibletaskevents/{task_id}").text,
        "log": quiet.log.read_text(),
        "processes": "\n".join(watch.seen),
        "Redis": stored(quiet),
        "files": "\n".join(files(quiet.root / ".flansible")),
        "Flower": flower(flower_port, task_id),
    }
    coded = base64.b64encode(WORDS["ssh"].encode()).decode().rstrip("=")
    for place, text in places.items():
        assert len(text) > 50, place
        assert [name for name, word in WORDS.items() if word in text] == [], place
        assert coded not in text, place


SHOW_DECRYPTED_KEY = """\
for file in /proc/[0-9]*/fd/*; do
  case "$(readlink "$file")" in */memfd:private_key*) echo shown; cat "$file"; break;; esac
done"""


@pytest.mark.by_day(1)
@pytest.mark.parametrize("login", [ADMIN, LOGIN], ids=["admin", "another"])
def test_neither_a_passphrase_nor_the_key_it_opens_is_told_or_shown(
    login: tuple[str, str], quiet: Service, tmp_path: Path
) -> None:
    phrase, path = f"phrase {secrets.token_hex(10)}", tmp_path / "key"
    keygen = [require_program("ssh-keygen"), "-q", "-f", str(path)]
    subprocess.run([*keygen, "-t", "rsa", "-b", "2048", "-N", ""], check=True)
    plain = [line for line in path.read_text().splitlines() if "PRIVATE KEY" not in line]
    subprocess.run([*keygen, "-p", "-P", "", "-N", phrase], check=True)
    body = {"playbook": "show.yml", "inventory": "../inventories/dev", "private_key": path.read_text()}
    watch = Watch()
    looking = threading.Thread(target=watch.look)
    looking.start()
    try:
        task_id = quiet.submit("ansibleplaybook", {**body, "private_key_passphrase": phrase}, login)
        status = quiet.wait(task_id, login)
    finally:
        watch.over.set()
        looking.join()
    output = quiet.output(task_id, login)
    assert status["Status"] == "SUCCESS" and "shown" in output and "-----BEGIN OPENSSH PRIVATE KEY-----" in output, (
        output
    )
    events = quiet.client(login).get(f"/api/ansibletaskevents/{task_id}").text
    asked = quiet.client(login).get(f"/api/ansibletaskrequest/{task_id}").text
    places = {"output": output, "events": events, "request": asked, "log": quiet.log.read_text()}
    places |= {"processes": "\n".join(watch.seen), "Redis": stored(quiet)}
    for place, text in places.items():
        # Two numbers in it, of which some lines are made, are drawn anew when it is decrypted.
        assert [word for word in (phrase, *plain) if word in text] == [], place


def flower(port: int, task_id: str) -> str:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=ADMIN, timeout=30) as client:
        paths = (
            "/",
            "/tasks",
            f"/task/{task_id}",
            "/broker",
            "/api/tasks",
            f"/api/task/info/{task_id}",
            "/api/workers",
        )
        return "".join(client.get(path, follow_redirects=True).text for path in paths)


def test_an_error_that_quotes_the_request_does_not_quote_a_secret(quiet: Service) -> None:
    for body in (
        {"module": "ping", "connection_password": [WORDS["ssh"]]},
        {"module": "ping", "vault_password": {"a": 1, "b": WORDS["vault"]}},
        {"module": "ping", "private_key": {"x": KEY}},
        {"module": "ping", "become_password": WORDS["become"], "unknown": 1},
        {"module": "ping", "become_password": WORDS["become"] + "\0"},
    ):
        reply = quiet.client().post("/api/ansiblecommand", json=body)
        assert reply.status_code == 400, reply.text
        assert not any(word in reply.text for word in WORDS.values())
    assert not any(word in quiet.log.read_text() for word in WORDS.values())


def test_a_wrong_password_is_not_logged(quiet: Service) -> None:
    for login in (("dev", WORDS["login"]), (WORDS["login"], "x")):
        assert httpx.get(f"{quiet.url}/api/ansibletasks", auth=login).status_code == 401
    assert DEV[1] not in quiet.log.read_text() and WORDS["login"] not in quiet.log.read_text()
