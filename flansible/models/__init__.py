"""What crosses a border: requests as clients send them, the authorized run, the task record and the replies.

Pydantic models, frozen; web validates with them, docs are generated from them, store keeps them as JSON. The runner
never sees them: it gets plain frames (flansible.wire).
"""

from flansible.models.records import (
    FINAL_STATES,
    STATUS_WORDS,
    AuthorizedRun,
    Confinement,
    Kind,
    Record,
    Secrets,
    State,
    Step,
    VariablesPart,
    Verdict,
)
from flansible.models.replies import (
    Accepted,
    ErrorBody,
    ErrorItem,
    Event,
    EventPage,
    Health,
    ListedPlaybook,
    PartHealth,
    PlaybookList,
    PlayTaskResult,
    TaskList,
    TaskResult,
    TaskStatus,
)
from flansible.models.requests import (
    DEFAULT_VAULT_ID,
    AdhocRequest,
    GitRequest,
    ModuleArgument,
    PlaybookRequest,
    Request,
    RunOptions,
    TaskOptions,
)

__all__ = [
    "DEFAULT_VAULT_ID",
    "FINAL_STATES",
    "STATUS_WORDS",
    "Accepted",
    "AdhocRequest",
    "AuthorizedRun",
    "Confinement",
    "ErrorBody",
    "ErrorItem",
    "Event",
    "EventPage",
    "GitRequest",
    "Health",
    "Kind",
    "ListedPlaybook",
    "ModuleArgument",
    "PartHealth",
    "PlayTaskResult",
    "PlaybookList",
    "PlaybookRequest",
    "Record",
    "Request",
    "RunOptions",
    "Secrets",
    "State",
    "Step",
    "TaskList",
    "TaskOptions",
    "TaskResult",
    "TaskStatus",
    "VariablesPart",
    "Verdict",
]
