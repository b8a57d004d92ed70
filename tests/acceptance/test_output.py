"""The formats of a run's output, its ranges, and following it while it comes."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.helpers.comparing import masked
from tests.helpers.services import ADMIN, Service
from tests.helpers.waiting import eventually

SHARES_SERVICE = True


def test_ansi_is_what_the_command_line_prints_on_a_terminal(service: Service, root: Path) -> None:
    body = {
        "playbook_dir": str(root / "playbooks"),
        "playbook": "fail.yml",
        "inventory": "../inventories/dev",
        "forks": 1,
    }
    task_id = service.submit("ansibleplaybook", body)
    service.wait(task_id)
    cli = subprocess.run(
        ["ansible-playbook", "-i", "../inventories/dev", "fail.yml", "-f", "1"],
        cwd=root / "playbooks",
        env={**service.environ, "PYTHONUNBUFFERED": "1", "ANSIBLE_FORCE_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    coloured = service.client().get(f"/api/ansibletaskoutput/{task_id}?format=ansi").text
    assert "\x1b[0;31m" in coloured
    assert masked(coloured) == masked(cli.stdout)
    assert "\x1b" not in service.output(task_id)


def test_each_line_of_a_result_has_its_colour_as_on_a_terminal(service: Service, root: Path) -> None:
    module = {"module": "command", "module_args": "printf 'one\\n\\ntwo\\n\\n'"}
    task_id = service.submit("ansiblecommand", {**module, "inventory": "../inventories/dev", "host_pattern": "dev1"})
    service.wait(task_id)
    cli = subprocess.run(
        ["ansible", "dev1", "-i", "../inventories/dev", "-m", "command", "-a", module["module_args"]],
        cwd=root / "playbooks",
        env={**service.environ, "PYTHONUNBUFFERED": "1", "ANSIBLE_FORCE_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    coloured = service.client().get(f"/api/ansibletaskoutput/{task_id}?format=ansi").text
    assert "two\x1b[0m\n" in coloured and coloured == cli.stdout


def test_escape_codes_of_a_task_stay_text_in_every_format(service: Service) -> None:
    task_id = service.submit(
        "ansiblecommand", {"module": "command", "module_args": "printf '\\033[31mred\\033[0m <b>'"}
    )
    service.wait(task_id)
    assert "\x1b[31mred\x1b[0m" in service.output(task_id)
    assert "\x1b[31mred\x1b[0m" in service.client().get(f"/api/ansibletaskoutput/{task_id}?format=ansi").text


def test_html_is_a_page_of_its_own_with_everything_escaped(service: Service) -> None:
    task_id = service.submit("ansiblecommand", {"module": "debug", "module_args": {"msg": "<script>alert(1)</script>"}})
    service.wait(task_id)
    reply = service.client().get(f"/api/ansibletaskoutput/{task_id}?format=html")
    assert reply.headers["Content-Type"].startswith("text/html")
    assert reply.text.lstrip().lower().startswith("<!doctype html")
    assert "<script" not in reply.text
    assert "&lt;script&gt;" in reply.text
    assert "http://" not in reply.text.replace("http://www.w3.org/", "") and "https://" not in reply.text


def test_ranges_put_together_are_the_whole_and_say_when_it_is_final(service: Service, root: Path) -> None:
    body = {"playbook_dir": str(root / "playbooks"), "playbook": "slow.yml", "inventory": "../inventories/dev"}
    task_id = service.submit("ansibleplaybook", {**body, "extra_vars": {"seconds": 1}})
    gathered, offset, final = b"", 0, False
    while not final:
        reply = service.client().get(f"/api/ansibletaskoutput/{task_id}?offset={offset}")
        gathered += reply.content
        offset, final = int(reply.headers["Flansible-Next-Offset"]), reply.headers["Flansible-Final"] == "true"
        assert offset == len(gathered)
    assert gathered == service.client().get(f"/api/ansibletaskoutput/{task_id}").content
    assert b"done" in gathered
    beyond = service.client().get(f"/api/ansibletaskoutput/{task_id}?offset={offset + 5}")
    assert (beyond.content, beyond.headers["Flansible-Final"]) == (b"", "true")


@pytest.mark.parametrize(
    "query", ["offset=-1", "offset=x", "format=pdf", "follow=maybe", "colour=1", "offset=1&offset=2"]
)
def test_a_bad_query_names_the_field(service: Service, query: str) -> None:
    reply = service.client().get(f"/api/ansibletaskoutput/00000000-0000-0000-0000-000000000000?{query}")
    assert reply.status_code == 400
    assert reply.json()["errors"][0]["field"] == query.partition("=")[0]


def test_following_gives_each_line_as_it_comes_and_ends_with_the_task(service: Service, root: Path) -> None:
    body = {"playbook_dir": str(root / "playbooks"), "playbook": "slow.yml", "inventory": "../inventories/dev"}
    task_id = service.submit("ansibleplaybook", {**body, "extra_vars": {"seconds": 2}})
    seen: dict[bytes, float] = {}
    text = b""
    with service.client().stream("GET", f"/api/ansibletaskoutput/{task_id}?follow=true") as reply:
        for chunk in reply.iter_bytes():
            text += chunk
            for word in (b"begun", b"done"):
                if word in text:
                    seen.setdefault(word, time.monotonic())
    assert seen[b"done"] - seen[b"begun"] > 1
    assert text == service.client().get(f"/api/ansibletaskoutput/{task_id}").content
    assert service.status(task_id)["Status"] == "SUCCESS"


def test_followers_leave_threads_for_everyone_else(service: Service) -> None:
    """However many follow, each gets it all, and others are answered: two web processes with sixteen threads each."""
    task_id = service.submit("ansiblecommand", {"module": "command", "module_args": "sleep 600"})
    eventually(lambda: service.status(task_id)["state"] == "running")
    url = f"{service.url}/api/ansibletaskoutput/{task_id}?follow=true"
    with contextlib.ExitStack() as stack:
        replies = []
        for _ in range(100):
            client = stack.enter_context(httpx.Client(auth=ADMIN, timeout=20))
            reply = client.send(client.build_request("GET", url), stream=True)
            stack.callback(reply.close)
            assert reply.status_code == 200
            replies.append(reply)
        assert service.status(task_id)["Status"] == "PROGRESS"
        canceled = service.client().post(f"/api/ansibletaskcancel/{task_id}?wait=30")
        assert (canceled.status_code, canceled.json()["state"]) == (200, "canceled")
        assert {reply.read() for reply in replies} == {service.output(task_id).encode()}
