"""Differences between the supported versions of ansible-core, 2.19 to 2.21: the only place for them.

The run process calls it before Ansible starts. Everything else in this folder serves all versions (`make test-matrix`
compares each with its own command line); flansible.runner.ansible_internals lists what that relies on.
"""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

from ansible._internal import _task
from ansible.executor import task_result
from ansible.executor.task_executor import TaskExecutor
from ansible.executor.task_queue_manager import FinalQueue

# Linux's sun_path without its final zero, and the longest name that multiprocessing gives a socket in its folder.
_SOCKET_PATH_BYTES = 107
_SOCKET_NAME_BYTES = len("/listener-") + 8


def use_private_rpc_socket(temp_dir: str) -> None:
    """Gives this run a private RPC socket and key.

    From 2.21 on, Ansible's main process serves its workers on a Unix socket (ansible._internal._rpc_host). Python makes
    the socket in a new folder in /tmp, which would stay there when the run is ended by a signal, and protects it with a
    key made at import, which all runs of one fork server would share. 2.19 and 2.20 use neither.
    """
    process = multiprocessing.current_process()
    process.authkey = os.urandom(32)
    # If the path were too long for a socket, Python's own folder serves; it is removed at a normal end.
    if len(os.fsencode(temp_dir)) + _SOCKET_NAME_BYTES <= _SOCKET_PATH_BYTES:
        process._config["tempdir"] = temp_dir  # type: ignore[attr-defined]


def can_execute_tasks() -> bool:
    """Whether `execute_task` can stand in for a worker: from 2.21 on, a worker asks the main process while it runs."""
    return not hasattr(_task.TaskContext, "create")


def execute_task(given: dict[str, Any]) -> None:
    """Does what a worker process does between its start and its end, in this process. given: a worker's arguments."""
    task = given["task"]
    with _task.TaskContext(task):
        result = TaskExecutor(
            given["host"],
            task,
            given["task_vars"],
            given["play_context"],
            given["loader"],
            given["shared_loader_obj"],
            given["final_q"],
            given["variable_manager"],
        ).run()
        queue: FinalQueue = given["final_q"]
        sent = task_result._RawTaskResult(
            host=given["host"], task=task, return_data=result, task_fields=task.dump_attrs()
        )
        queue.send_task_result(sent)
