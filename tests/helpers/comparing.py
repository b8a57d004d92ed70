"""Comparing a run through the API with the command line's: the masks, a job as both sides take it, and the comparison.

Masked are only times, temporary names and addresses. The command line runs unbuffered into one pipe, so that its
standard output and error stand in the order in which they were printed.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.services import Service

MASKS = (
    (r"ansible-tmp-[\d.]+-\d+-\d+", "ansible-tmp-T"),
    (r"ansible-local-\w+", "ansible-local-T"),
    (r"/tmp[\w.-]{8}\b|\btmp\w{8}\b", "tmpT"),
    (r"/ansible\.\w{8}\b", "/ansible.T"),
    (r"\.ansible/cp/\w+", ".ansible/cp/S"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?", "TIME"),
    (r"\b\d:\d\d:\d\d\.\d+", "DELTA"),
    (r'"(atime|ctime|mtime|start|end|delta|inode|ino|nlink|uuid)": ("[^"]*"|[\d.]+)', r'"\1": M'),
    (r"0x[0-9a-f]{6,}", "0xA"),
    (r"\bj\d{6,}\.\d+", "jJOB"),
    (r"(?m)^ASYNC POLL .*\n|^FAILED - RETRYING: .*async_status.*\n", ""),  # as often as it took
    (r"\bpid(['\"]?[:=] ?)\d+", r"pid\1P"),
    (r"(Paused for|slept|in|after) \d+(\.\d+)? seconds", r"\1 N seconds"),
)


@dataclass(frozen=True)
class Job:
    """One piece of work, as the API is asked for it and as a shell is; `lines_in_any_order` where Ansible has none."""

    name: str
    body: dict[str, Any]
    argv: list[str]
    returncode: int = 0
    lines_in_any_order: bool = False
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        return re.sub(r"\W+", "-", self.name)


def adhoc(name: str, argv: str | list[str], returncode: int = 0, **body: Any) -> Job:
    return Job(name, body, ["ansible", *(argv.split() if isinstance(argv, str) else argv)], returncode)


def playbook(name: str, argv: str | list[str], returncode: int = 0, **body: Any) -> Job:
    return Job(name, body, ["ansible-playbook", *(argv.split() if isinstance(argv, str) else argv)], returncode)


def masked(text: str) -> str:
    for pattern, replacement in MASKS:
        text = re.sub(pattern, replacement, text)
    return text


def check(
    service: Service,
    directory: Path,
    job: Job,
    adhoc_directory: Path | None = None,
    clean: Callable[[], None] | None = None,
) -> None:
    """Run both in the same directory; text and exit code must be the same.

    Side by side to save time; where a job leaves something behind, one after the other, with `clean` before each.
    """
    if clean is not None:
        clean()
    is_adhoc = job.argv[0] == "ansible"
    route = "ansiblecommand" if is_adhoc else "ansibleplaybook"
    body = job.body if is_adhoc else {"playbook_dir": str(directory), **job.body}
    task_id = service.submit(route, body)
    if clean is not None:
        service.wait(task_id)
        clean()
    cli = subprocess.run(
        job.argv,
        cwd=(adhoc_directory or directory) if is_adhoc else directory,
        env={**service.environ, **job.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=170,
        check=False,
    )
    status = service.wait(task_id)
    reply = service.client().get(f"/api/ansibletaskoutput/{task_id}")
    ours, theirs = (masked(data.decode(errors="backslashreplace")) for data in (reply.content, cli.stdout))
    if job.lines_in_any_order:
        ours, theirs = ("\n".join(sorted(text.splitlines())) for text in (ours, theirs))
    assert ours == theirs
    assert status["returncode"] == cli.returncode == job.returncode, status["description"]
    assert status["state"] == ("succeeded" if job.returncode == 0 else "failed")
