"""An example of a comparison, for the API documents."""

from __future__ import annotations

from flansible.models import State, TaskStatus
from flansible.models.comparison_replies import (
    ComparedResult,
    Comparison,
    HostDifference,
    PlayTaskDifference,
    RequestDifference,
)

_FAILURE = {
    "Status": "FLANSIBLE_TASK_FAILURE",
    "state": State.FAILED,
    "description": "ansible ended with exit code 2: one or more hosts failed",
    "returncode": 2,
    "counts": {"failed": 1},
}


def comparison(task: TaskStatus) -> Comparison:
    """Returns a comparison of a task that failed with this one, which did not."""
    failed = task.model_copy(update={**_FAILURE, "task_id": "71014e1b-dbf6-4fa1-8ee6-11b3dd901715"})
    play_task = PlayTaskDifference(
        play="Ansible Ad-Hoc",
        task="ping",
        module="ping",
        differs=["verdict", "message"],
        result=ComparedResult(verdict="failed", changed=False, message="boom", duration_seconds=0.3),
        other_result=ComparedResult(verdict="ok", changed=False, message="", duration_seconds=0.21),
    )
    host = HostDifference(
        host="localhost", verdict="failed", other_verdict="ok", play_tasks=[play_task], is_partial=False
    )
    return Comparison(
        task=failed,
        other=task,
        failures_between=0,
        request=[RequestDifference(field="module_args.data", value="crash", other_value=None)],
        masked=[],
        hosts=[host],
        compared_hosts=1,
        next_after=None,
    )
