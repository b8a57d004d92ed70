"""The one exception tree. Every process raises these; no other module defines an exception.

    FlansibleError
    ├── ConfigurationError        config.ini, the environment or rbac.json is wrong; carries every fault at once
    ├── RequestError              an HTTP answer: status, code, message, errors by field
    │   ├── InvalidRequest        400   ├── NotAuthenticated      401   ├── Forbidden            403
    │   ├── NotFound              404   ├── MethodNotAllowed      405   ├── Conflict             409
    │   ├── BodyTooLarge          413   ├── UnsupportedMediaType  415   ├── TooManyRequests      429
    │   └── Unavailable           503
    ├── StoreUnavailable          Redis does not answer (translated in store)
    ├── BrokerUnavailable         the Celery broker does not answer (translated in celery_app)
    ├── IllegalMove               a task was asked to go from one state to another that is not legal
    ├── AuditUnavailable          the audit log cannot be written; what must be in it is refused
    ├── SealError                 secrets cannot be sealed or opened: the key is missing or another one
    ├── WireError                 a frame between supervisor and runner is broken or too large
    ├── RunnerError               the fork server cannot start or a run cannot be started in it
    │   └── StartFailure          Ansible itself refused to load; carries its text and exit code
    └── ClientError               what flansible.client raises, and the commands that are clients
        ├── OptionError           options, client.ini or a file named there cannot be used; nothing was sent
        ├── ServiceRefused        the service said no: status, code, message, errors by field
        ├── ServiceUnreachable    no connection, or no answer in time
        └── WaitTimeout           the task was not final in time

Standard library only (import law).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class FlansibleError(Exception):
    """The root: catch this to catch whatever Flansible itself raises."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a configuration file.

    source: the file or environment variable; key: where in it (may be empty); message: what is wrong and what to do.
    """

    source: str
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.source}: {self.key}" if self.key else self.source
        return f"{where}: {self.message}"


class ConfigurationError(FlansibleError):
    """Configuration that must be mended before anything starts. `faults` holds all of them, never only the first."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


@dataclass(frozen=True)
class FieldError:
    """One faulty field of a request; `field` is its path, such as `module_args[2].arg_name`."""

    field: str
    message: str


class RequestError(FlansibleError):
    """An answer to the client that is not a success.

    `code` is stable and meant for programs; `message` says to a person what is wrong and what to do.
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
        self.errors = errors or []
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


class BodyTooLarge(RequestError):
    status, default_code = 413, "body_too_large"


class UnsupportedMediaType(RequestError):
    status, default_code = 415, "unsupported_media_type"


class TooManyRequests(RequestError):
    status, default_code = 429, "too_many_requests"


class Unavailable(RequestError):
    status, default_code = 503, "unavailable"


class StoreUnavailable(FlansibleError):
    """Redis did not answer in time, refused the connection, or is out of memory or disk."""


class BrokerUnavailable(FlansibleError):
    """The broker did not take the message; nothing was queued."""


class IllegalMove(FlansibleError):
    """The record is no longer in a state from which the asked-for move is legal."""


class AuditUnavailable(FlansibleError):
    """The audit log cannot be written: the disk is full, or its files are not to be had."""


class SealError(FlansibleError):
    """Secrets cannot be sealed or opened with this process' key."""


class WireError(FlansibleError):
    """A frame is too large or is not what its header says."""


class RunnerError(FlansibleError):
    """The fork server did not start, died, or refused a run."""


class StartFailure(RunnerError):
    """Ansible did not load with this configuration; it said why, as it would have on the command line."""

    def __init__(self, text: str, returncode: int) -> None:
        super().__init__(text.strip() or f"the fork server ended with exit code {returncode}")
        self.text = text
        self.returncode = returncode


class ClientError(FlansibleError):
    """The service could not be asked, or said no. `exit_code` is what a command ends with."""

    exit_code: int = 1


class OptionError(ClientError):
    """What was given cannot be made a request, and why."""

    exit_code = 5  # Ansible's own for bad options


class ServiceRefused(ClientError):
    """The service's answer was an error.

    status: HTTP's; code: the stable word of the error body, or `unexpected_reply` when it was none of Flansible's;
    errors: faulty fields; retry_after_seconds: when to ask again, if the service said so.
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
        self.exit_code = 5 if 400 <= status < 500 and not self.passes else 1

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed later: too many requests, or a part of the service is away."""
        return self.status in (429, 502, 503, 504)


class ServiceUnreachable(ClientError):
    """No connection, or it broke, or there was no answer in time. What was submitted may have been queued."""


class WaitTimeout(ClientError):
    """The task was not final when the time was over; it goes on."""
