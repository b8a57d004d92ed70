"""The one exception tree. Every process raises these; no other module defines an exception.

    FlansibleError
    ├── ConfigurationError        config.ini, the environment or rbac.json is wrong; carries every fault at once
    ├── RequestError              an HTTP error reply: status, code, message, errors by field
    │   ├── InvalidRequest        400   ├── NotAuthenticated      401   ├── Forbidden            403
    │   ├── NotFound              404   ├── MethodNotAllowed      405   ├── Conflict             409
    │   ├── Expired               410   ├── PreconditionFailed    412   ├── BodyTooLarge         413
    │   ├── UnsupportedMediaType  415   ├── TooManyRequests       429   ├── BadGateway           502
    │   └── Unavailable           503
    ├── StoreUnavailable          Redis does not answer, or refuses (translated in store)
    │   └── HistoryUnavailable    the history database does not answer, or refuses (translated in history)
    ├── ArchiverReplaced          another worker was elected to archive while this one did
    ├── BrokerUnavailable         the Celery broker does not answer, or refuses (translated in broker)
    ├── RecordUnreadable          a task's record is damaged, or of a version that this one does not know
    ├── TaskDeleted               a task's record was deleted while it was read
    │   └── OutputExpired         its output and events were, and its record is there
    ├── IllegalMove               a task cannot move from its state to the requested one (states.STATES)
    ├── BackupUnusable            a backup cannot be written, or one cannot be restored: damaged, newer, in the way
    ├── DeliveryFailed            a notification was not accepted; it is tried again
    │   └── DeliveryRefused       it never will be: a forbidden address, lost rights, 410
    ├── AddressRefused            a host has an address that the service does not dial for a user
    ├── AuditUnavailable          the audit log cannot be written; requests that must be audited are refused
    ├── SealError                 secrets cannot be sealed or opened: the key is missing or a different one
    ├── SecretUnavailable         the operator's secret_function has no such secret, or cannot reach its store
    ├── WireError                 a frame between supervisor and runner is malformed or too large
    ├── RunnerError               the fork server or a run cannot be started
    │   ├── NotForkable           a fork server cannot be forked from the zygote, and has to be started
    │   └── StartFailure          Ansible failed to load; carries its text and exit code
    ├── ProjectError              a project's commit cannot be fetched, verified, written, or its requirements installed
    └── ClientError               raised by flansible.client and by the client commands
        ├── OptionError           an option, client.ini or a file named there cannot be used; nothing was sent
        ├── ServiceRefused        the service replied with an error: status, code, message, errors by field
        ├── ServiceUnreachable    no connection, or no reply in time
        └── WaitTimeout           the task was not final in time
    NeedsWorker                   no error: a play task goes on in a worker process of Ansible's (runner.inline_tasks)

Standard library only (import law).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

# Of one reply. More would help no reader, and may have a name or a list of names each.
MAX_ERRORS = 100
_MAX_FIELD_CHARACTERS = 300
_MAX_MESSAGE_CHARACTERS = 2000


class FlansibleError(Exception):
    """The root of the tree: catches everything that Flansible itself raises."""


@dataclass(frozen=True)
class Fault:
    """One fault of a configuration file.

    source: the file or environment variable; key: where in it (may be empty); message: what is wrong and what to do.
    """

    source: str
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.source}: {self.key}" if self.key else self.source
        return f"{where}: {self.message}"


class ConfigurationError(FlansibleError):
    """Configuration that must be fixed before anything starts. `faults` holds every fault, not only the first."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


@dataclass(frozen=True)
class FieldError:
    """One invalid field of a request; `field` is its path, such as `module_args[2].arg_name`.

    Both are cut where they are long: they repeat what clients name, in each error of a reply.
    """

    field: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", _beginning(self.field, _MAX_FIELD_CHARACTERS))
        object.__setattr__(self, "message", _beginning(self.message, _MAX_MESSAGE_CHARACTERS))


def field_path(names: Iterable[str | int]) -> str:
    """Joins keys and indexes to a path, such as `module_args[2].arg_name`; of a long one the beginning.

    Only for what is shown: paths of all values together take the length of a key for each.
    """
    cut = (name if isinstance(name, int) else name[:_MAX_FIELD_CHARACTERS] for name in names)
    path = "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in cut)
    return _beginning(path.removeprefix("."), _MAX_FIELD_CHARACTERS)


def _beginning(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


class RequestError(FlansibleError):
    """An HTTP error reply.

    `code` is stable and meant for programs; `message` is for people: what is wrong and what to do. Of `errors` the
    first MAX_ERRORS are kept.
    """

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        errors: list[FieldError] | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.errors = (errors or [])[:MAX_ERRORS]
        self.retry_after_seconds = retry_after_seconds


class InvalidRequest(RequestError):
    status, default_code = 400, "invalid_request"


class NotAuthenticated(RequestError):
    status, default_code = 401, "not_authenticated"


class Forbidden(RequestError):
    status, default_code = 403, "forbidden"


class NotFound(RequestError):
    status, default_code = 404, "not_found"


class MethodNotAllowed(RequestError):
    status, default_code = 405, "method_not_allowed"


class Conflict(RequestError):
    status, default_code = 409, "conflict"


class Expired(RequestError):
    status, default_code = 410, "output_expired"


class PreconditionFailed(RequestError):
    status, default_code = 412, "precondition_failed"


class BodyTooLarge(RequestError):
    status, default_code = 413, "body_too_large"


class UnsupportedMediaType(RequestError):
    status, default_code = 415, "unsupported_media_type"


class TooManyRequests(RequestError):
    status, default_code = 429, "too_many_requests"


class BadGateway(RequestError):
    status, default_code = 502, "remote_unreachable"


class Unavailable(RequestError):
    status, default_code = 503, "unavailable"


class StoreUnavailable(FlansibleError):
    """Redis did not answer in time, or refused: the connection, the password, a command, a write.

    is_away: it refused the connection, or is loading its records: it grants nothing to anybody now; reason: what is
    wrong with it, as a predicate, without what Redis said: for replies to users.
    """

    def __init__(self, message: str, is_away: bool = False, reason: str = "does not answer") -> None:
        super().__init__(message)
        self.is_away = is_away
        self.reason = reason


class HistoryUnavailable(StoreUnavailable):
    """The history database did not answer in time, or refused; what is live is not affected. reason: as
    StoreUnavailable's. Whoever waits for the store waits for this in the same way."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, reason=reason)


class BackupUnusable(FlansibleError):
    """A backup cannot be written, or cannot be restored here; nothing was changed."""


class ArchiverReplaced(FlansibleError):
    """Another worker was elected to archive, because nothing was heard of this one for too long."""


class BrokerUnavailable(FlansibleError):
    """The broker did not answer, or did not accept the message: nothing was queued. reason: as StoreUnavailable's."""

    def __init__(self, message: str, reason: str = "does not answer") -> None:
        super().__init__(message)
        self.reason = reason


class RecordUnreadable(FlansibleError):
    """A task's record is damaged, or of a version that this one does not know. why: what is wrong with it."""

    def __init__(self, task_id: str, why: str) -> None:
        super().__init__(f"the record of task {task_id} cannot be read: {why}")
        self.why = why


class TaskDeleted(FlansibleError):
    """A task's record was deleted by the retention while it was read: what was read of it is not all."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"task {task_id} was deleted while it was read: it is older than the retention keeps")


class OutputExpired(TaskDeleted):
    """Output and events of a task were deleted by the retention, perhaps while they were read; its record is there."""

    def __init__(self, task_id: str, expired_at: str) -> None:
        super().__init__(task_id)
        self.expired_at = expired_at

    def __str__(self) -> str:
        return f"Output and events of this task were deleted at {self.expired_at}, as it is that old."


class IllegalMove(FlansibleError):
    """The task is not in a state from which the requested move is legal. standing: what the store answered."""

    def __init__(self, message: str, standing: str = "") -> None:
        super().__init__(message)
        self.standing = standing


class AuditUnavailable(FlansibleError):
    """The audit log cannot be written: the disk is full, or its files are not accessible."""


class DeliveryFailed(FlansibleError):
    """A receiver did not accept a notification, or could not be reached. The message is for its owner."""


class DeliveryRefused(DeliveryFailed):
    """A notification is not sent, and would not be later: its address, its owner's rights, or the receiver's word."""


class AddressRefused(FlansibleError):
    """A host has an address that the service does not dial for users: one of this machine, or of a private network."""


class SealError(FlansibleError):
    """Secrets cannot be sealed or opened with this process' key."""


class SecretUnavailable(FlansibleError):
    """An external store has no such secret, or does not answer. The message is shown: it must not have the secret."""


class WireError(FlansibleError):
    """A frame is too large or does not match its header."""


class RunnerError(FlansibleError):
    """The fork server did not start, died, or refused a run."""


class NotForkable(RunnerError):
    """A fork server cannot be forked from the zygote, and has to be started. The message says why, in a few words."""


class StartFailure(RunnerError):
    """Ansible did not load with this configuration; `text` is what it printed, as on the command line."""

    def __init__(self, text: str, returncode: int) -> None:
        super().__init__(text.strip() or f"the fork server ended with exit code {returncode}")
        self.text = text
        self.returncode = returncode


class ProjectError(FlansibleError):
    """What a project names cannot be made ready. The message is for the user, in git's or Galaxy's own words."""


class ClientError(FlansibleError):
    """The service could not be reached, or refused the request. `exit_code` is the exit code of the command."""

    exit_code: int = 1


class OptionError(ClientError):
    """The options cannot be turned into a request; the message says why."""

    exit_code = 5  # Ansible's own for bad options


class ServiceRefused(ClientError):
    """The service replied with an error.

    status: HTTP's; code: the stable word of the error body, or `unexpected_reply` if Flansible did not send it;
    errors: invalid fields; retry_after_seconds: when to retry, if the service said so.
    """

    def __init__(
        self, message: str, *, status: int, code: str, errors: list[FieldError], retry_after_seconds: float | None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.errors = errors
        self.retry_after_seconds = retry_after_seconds
        is_refusal = code == "too_many_logins" or not self.is_temporary
        self.exit_code = 5 if 400 <= status < 500 and is_refusal else 1

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed later: too many requests, or a part of the service is down."""
        return self.status in (429, 502, 503, 504)


class ServiceUnreachable(ClientError):
    """No connection, a broken one, or no reply in time. A submitted task may have been queued nevertheless.

    is_temporary: whether trying again may help; not where the URL or the certificate is wrong.
    """

    def __init__(self, message: str, is_temporary: bool = True) -> None:
        super().__init__(message)
        self.is_temporary = is_temporary


class WaitTimeout(ClientError):
    """The task was not final within the timeout; it continues."""


class NeedsWorker(BaseException):
    """A play task cannot be run inside the run after all. No Exception: Ansible would make a failed result of it."""
