"""Starts the retries of templates: a new task on the hosts that failed, some time after a task of a template did.

The script that ends a task records that its retry is due (store/lua/move.lua). A web process takes it for a minute
before it starts it: one that cannot start now is tried again after that, by whichever process, behind all others that
are due. A key makes two that start it harmless.
"""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime, timedelta

from flansible.errors import Forbidden, RecordUnreadable, RequestError, TooManyRequests
from flansible.web import task_launch, template_launch
from flansible.web.context import WebContext
from flansible.web.template_launch import TemplateLaunch

log = logging.getLogger(__name__)

_AT_ONCE = 20
_TAKEN_SECONDS = 60  # longer than a launch takes
_GIVEN_UP = timedelta(days=1)  # after it was due
# A name that means more than itself in a limit is left out: inventory programs choose names.
_PLAIN_NAME = re.compile(r"[\w.:-]+")


def start_due(context: WebContext) -> None:
    """Starts the retries that are due. Raises StoreUnavailable."""
    for _ in range(_AT_ONCE):
        task_id = context.store.take_retry(_TAKEN_SECONDS)
        if task_id is None:
            return
        try:
            _start(context, task_id)
        except (*task_launch.MAY_SUCCEED_LATER, TooManyRequests, Forbidden) as error:
            is_later = not isinstance(error, Forbidden) or error.code == "frozen"
            if is_later and not _is_given_up(context, task_id):
                log.info("the retry of task %s is started later: %s", task_id, error)
                continue
            log.warning("task %s is not retried%s: %s", task_id, ", after a day" if is_later else "", error)
        except (RequestError, RecordUnreadable) as error:
            log.warning("task %s is not retried: %s", task_id, error)
        except Exception:  # one that cannot be started must not hold up the others
            log.exception("task %s is not retried", task_id)
        context.store.end_retry(task_id)


def failed_hosts(stats: dict[str, dict[str, int]], which: str) -> list[str]:
    """Returns the hosts to try again. which: `unreachable`, or `failed` for those that failed as well."""
    words = ("unreachable",) if which == "unreachable" else ("unreachable", "failures")
    found = (host for host, counts in stats.items() if any(counts.get(word) for word in words))
    return sorted(host for host in found if _PLAIN_NAME.fullmatch(host) and host != "all")


def _is_given_up(context: WebContext, task_id: str) -> bool:
    """Whether a retry has been due for so long that it is not to be started any more."""
    task, run = context.store.task(task_id), context.store.authorized_run(task_id)
    if task is None or task.finished_at is None or run is None or run.retry is None:
        return True
    due = datetime.fromisoformat(task.finished_at) + timedelta(seconds=run.retry.delay_seconds)
    return datetime.now(UTC) > due + _GIVEN_UP


def _start(context: WebContext, task_id: str) -> None:
    run = context.store.authorized_run(task_id)
    if run is None or run.retry is None or run.origin.template is None:
        return
    event = context.store.stats_event(task_id)
    hosts = failed_hosts((event or {}).get("stats", {}), run.retry.hosts)
    user = context.rbac.users().get(run.user)
    if not hosts or user is None:
        return
    wanted = TemplateLaunch(
        run.origin.template,
        user,
        run.retry.values,
        trigger="retry",
        key=f"retry of {task_id}",
        retry_of=task_id,
        hosts=tuple(hosts),
        attempt=run.retry.attempt + 1,
    )
    event_of = task_launch.background_event(user.name, wanted.key or "")
    launched = template_launch.launch(context, wanted, event_of)
    log.info("task %s tries %d hosts of task %s again", launched.task_id, len(hosts), task_id)
