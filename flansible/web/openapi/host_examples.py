"""Example replies about hosts, for the API documents."""

from __future__ import annotations

from flansible.models import State
from flansible.models.host_replies import HostDetails, HostFactsReply, HostLastTask, HostList, HostRun, KnownHost

_TASK_ID = "7d4be01c-4f0f-4dc6-9d8c-1c1f0e0a5a52"
_INVENTORY = "../inventories/dev"
_LAST = HostLastTask(
    task_id=_TASK_ID,
    finished_at="2026-01-31T12:00:00.350Z",
    kind="playbook",
    user="admin",
    summary="admin: playbook site.yml",
    state=State.FAILED,
)
_HOST = KnownHost(
    name="web1",
    inventory=_INVENTORY,
    groups=["web"],
    verdict="changed",
    last_task=_LAST,
    last_changed=_LAST,
    last_failed=None,
)

REPLIES = (
    HostList(hosts=[_HOST], next_after=None),
    HostDetails(
        name="web1",
        hosts=[_HOST],
        tasks=[
            HostRun(
                task_id=_TASK_ID,
                inventory=_INVENTORY,
                kind="playbook",
                user="admin",
                summary="admin: playbook site.yml",
                state=State.FAILED,
                submitted_at="2026-01-31T12:00:00.000Z",
                finished_at="2026-01-31T12:00:00.350Z",
                verdict="changed",
                changed=True,
                counts={"ok": 3, "changed": 1},
            )
        ],
        next_before=None,
        facts_gathered_at="2026-01-31T12:00:00.120Z",
    ),
    HostFactsReply(
        name="web1",
        inventory=_INVENTORY,
        gathered_at="2026-01-31T12:00:00.120Z",
        task_id=_TASK_ID,
        facts={"ansible_distribution": "Debian", "ansible_processor_vcpus": 2},
    ),
)
