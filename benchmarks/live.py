"""How long what a run prints is on its way to a follower.

A callback plugin beside the playbook prints the time as it prints: the very call with which Ansible's Display writes a
line to the run's standard output, where a terminal would show it. A follower of the output notes when it has the line.
Events carry the time at which the run wrote them, in whole milliseconds, so theirs may be shown up to one too long.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx

from benchmarks import works
from benchmarks.service import Running
from benchmarks.works import Work

LINES = 400
TASKS = 60
_PAUSE_SECONDS = 0.01
_STAMP = re.compile(rb"printed at (\d+)\n")
_PLUGIN = """\
import time
from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "stamps"

    def v2_runner_item_on_ok(self, result):
        self._display.display(f"printed at {time.time_ns()}")

    v2_playbook_on_task_start = lambda self, task, is_conditional: self.v2_runner_item_on_ok(None)
"""


@dataclass(frozen=True)
class Delays:
    """Seconds from printed to received, one of each line or event."""

    output: list[float]
    events: list[float]


def lay_out(folder: Path) -> None:
    """Lines with a pause between them, then play tasks as fast as they come."""
    (folder / "callback_plugins").mkdir(parents=True)
    (folder / "callback_plugins/stamps.py").write_text(_PLUGIN)
    loop = f"""\
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug: msg="line {{{{ item }}}}"
      loop: "{{{{ range(0, {LINES}) | list }}}}"
      loop_control: {{pause: {_PAUSE_SECONDS}}}
"""
    (folder / "live.yml").write_text(loop + "    - ansible.builtin.debug: msg=hello\n" * TASKS)


def measure(service: Running) -> Delays:
    """Of one run that two clients follow."""
    folder = service.playbooks / "live"
    lay_out(folder)
    work = works.playbook("live", folder, "live.yml")
    found = Delays([], [])
    with service.client() as client:
        works.through_the_api(client, Work("warm", "ansiblecommand", {"module": "debug"}, ()))
        task_id = works.submit(client, work)
        followers = [
            threading.Thread(target=_follow_output, args=(service, task_id, found.output)),
            threading.Thread(target=_follow_events, args=(service, task_id, found.events)),
        ]
        for follower in followers:
            follower.start()
        for follower in followers:
            follower.join()
        works.await_success(client, task_id, work.name)
    return found


def _follow_output(service: Running, task_id: str, delays: list[float]) -> None:
    rest = b""
    with service.client() as client:
        for received, data in _received(client, f"/api/ansibletaskoutput/{task_id}?follow=true", {}):
            lines, _, rest = (rest + data).rpartition(b"\n")
            delays += (received - int(stamp) / 1e9 for stamp in _STAMP.findall(lines + b"\n"))


def _follow_events(service: Running, task_id: str, delays: list[float]) -> None:
    rest = b""
    with service.client() as client:
        stream = {"Accept": "text/event-stream"}
        for received, data in _received(client, f"/api/ansibletaskevents/{task_id}", stream):
            messages, _, rest = (rest + data).rpartition(b"\n\n")
            for body in re.findall(rb"^data: (.*)$", messages, re.MULTILINE):
                event = json.loads(body)
                if event["event"] in ("task_start", "host_result"):
                    delays.append(received - datetime.fromisoformat(event["time"]).timestamp())


def _received(client: httpx.Client, path: str, headers: dict[str, str]) -> Iterator[tuple[float, bytes]]:
    """What comes, and when. Left out is what was there before we were: it had to wait for us."""
    with client.stream("GET", path, headers=headers) as reply:
        reply.raise_for_status()
        pieces = reply.iter_raw()
        next(pieces, None)
        for data in pieces:
            yield time.time(), data
