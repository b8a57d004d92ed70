"""Moves the outbox to the table of deliveries, and has those sent that are due.

    claim.lua, move.lua ─▶ flansible:outbox ─▶ deliveries ─▶ a thread each ─▶ receiver
                            entry removed ◀── committed        │ accepted, or tried again for a day
                                                               ▼
                                                            deliveries

A thread of each web process, since rights are in rbac.json, which workers do not have; of all of them one is elected,
by a lease in Redis. It may be killed at any moment: an entry is removed once its deliveries are committed, under a
unique key, and a delivery that was taken and not finished is due again two minutes later, with the same id. So two that
are elected, because one was stopped for a while, do no harm. A slow receiver holds two threads at most.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

from flansible.errors import StoreUnavailable
from flansible.history.delivery_rows import DeliveryRows, NewDelivery, StoredDelivery
from flansible.history.hook_call_rows import HookCallRows
from flansible.history.merged_records import Records
from flansible.history.schema import VERSION
from flansible.notifications.recipients import Notification, Notifications, Recipients
from flansible.notifications.sending import Sender
from flansible.store import EVERY_EVENT, OutboxEntry
from flansible.system import process_identity
from flansible.system.periodic import Periodic

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
ELECTED_SECONDS = 15.0
TAKEN_SECONDS = 120.0  # longer than an attempt can take
MOST_AT_ONCE, MOST_OF_RECEIVER = 64, 2
_RENEW_SECONDS = 5.0
_LOOK_SECONDS = 15.0  # at the database, without a reason
_PRUNE_SECONDS = 3600.0
_KEPT_DAYS = 30
_ENTRIES = 100
_THREAD_SECONDS = 10.0


class Dispatcher(Periodic):
    """store: with the history database; rows: the deliveries in it; calls: of webhooks, which are deleted in time."""

    def __init__(
        self,
        store: Records,
        rows: DeliveryRows,
        calls: HookCallRows,
        notifications: Notifications,
        recipients: Recipients,
        sender: Sender,
    ) -> None:
        super().__init__("dispatcher", TICK_SECONDS)
        self._store = store
        self._rows = rows
        self._calls = calls
        self._notifications = notifications
        self._recipients = recipients
        self._sender = sender
        self._woken = threading.Event()
        self._lock = threading.Lock()
        self._sending: Counter[str] = Counter()
        self._is_elected = self._is_ready = False
        self._renew_at = self._look_at = self._prune_at = 0.0
        self._due_at: float | None = 0.0  # milliseconds since 1970; None: nothing is pending
        self._version = ""
        self._problem = ""

    def stop(self) -> None:
        super().stop()
        self._woken.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.wait(self._seconds)
            self._woken.clear()
            self._round()

    def tick(self) -> None:
        try:
            if not self._elected():
                return
            if not self._has_tables():
                return
            self._look()
            self._move_entries()
            self._send_due()
            self._problem = ""
        except StoreUnavailable as error:
            if str(error) != self._problem:
                log.warning("notifications wait: %s", error)
            self._problem = str(error)

    def _elected(self) -> bool:
        now = time.monotonic()
        if now >= self._renew_at:
            was_elected = self._is_elected
            self._is_elected = self._store.elect_dispatcher(process_identity.own_identity(), ELECTED_SECONDS)
            self._renew_at = now + _RENEW_SECONDS
            if self._is_elected and not was_elected:
                self._due_at, self._look_at = 0.0, 0.0
        return self._is_elected

    def _has_tables(self) -> bool:
        """A worker makes them; those of a later version have what this one needs."""
        if not self._is_ready and self._store.archive is not None:
            self._is_ready = self._store.archive.database.version() >= VERSION
        return self._is_ready

    def _look(self) -> None:
        """Now and then: what is due, and whether what is written to the outbox is what notifications ask for."""
        now = time.monotonic()
        if now >= self._prune_at:
            self._prune_at = now + _PRUNE_SECONDS
            before = _milliseconds() - _KEPT_DAYS * 86_400_000
            self._rows.prune(before)
            self._calls.prune(before)
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        self._due_at = self._rows.next_due()
        version, written = self._store.notified()
        asked = {event for one in self._notifications.all() for event in one.spec.on}
        wanted = frozenset({"started"} & asked) | (frozenset({"final"}) if asked - {"started"} else frozenset())
        if wanted - written and EVERY_EVENT not in written:
            self._store.expect_notifications()  # at once; a Redis that was emptied has forgotten it
        elif version == self._version and wanted != written:
            # Only when no definition was changed since the last look: its transaction may not be over yet.
            self._store.set_notified(version, wanted)
        self._version = version

    def _move_entries(self) -> None:
        while entries := self._store.outbox(_ENTRIES) if self._store.outbox_length() else []:
            notifications = self._notifications.all()
            tasks = [entry for entry in entries if entry.event != "wake"]
            found = [one for entry in tasks for one in self._deliveries_of(entry, notifications)]
            if found:
                self._rows.add(found)
            self._store.remove_from_outbox(entries)
            self._due_at = 0.0
            if self._stopped.is_set():
                return

    def _deliveries_of(self, entry: OutboxEntry, notifications: list[Notification]) -> list[NewDelivery]:
        try:
            return self._recipients.deliveries(entry, notifications)
        except StoreUnavailable:
            raise
        except Exception:
            # One entry that cannot be read must not hold up all others for ever.
            log.exception("nobody is notified of task %s", entry.task_id)
            return []

    def _send_due(self) -> None:
        now = _milliseconds()
        if self._due_at is None or now < self._due_at:
            return
        with self._lock:
            busy = Counter(self._sending)
        free = MOST_AT_ONCE - busy.total()
        if free <= 0:
            return
        taken = self._rows.take_due(now, now + int(TAKEN_SECONDS * 1000), free, busy, MOST_OF_RECEIVER)
        for delivery in taken:
            with self._lock:
                self._sending[delivery.receiver] += 1
            name = f"deliver-{delivery.number}"
            threading.Thread(target=self._deliver, args=(delivery,), name=name, daemon=True).start()
        # What is due and was not taken waits for a thread, which wakes this one when it ends.
        self._due_at = self._rows.next_due()

    def _deliver(self, delivery: StoredDelivery) -> None:
        """Delivers, and goes on with what is due for the same receiver, not for ever: others may need the thread."""
        give_way_at = time.monotonic() + _THREAD_SECONDS
        following: StoredDelivery | None = delivery
        try:
            while following is not None and not self._stopped.is_set():
                delivery = following
                outcome = self._sender.attempt(delivery)
                self._rows.finish(delivery.id, outcome)
                kept = {"pending": "failed"}.get(outcome.state, outcome.state)
                self._store.count_delivery(delivery.kind, kept)
                if time.monotonic() > give_way_at:
                    break
                now = _milliseconds()
                following = self._rows.take_next(delivery.receiver, now, now + int(TAKEN_SECONDS * 1000))
        except StoreUnavailable as error:
            log.warning("delivery %s is tried again: %s", delivery.id, error)
        except Exception:
            log.exception("delivery %s failed inside Flansible", delivery.id)
        finally:
            with self._lock:
                self._sending[delivery.receiver] -= 1
                if self._sending[delivery.receiver] <= 0:
                    del self._sending[delivery.receiver]
            self._due_at = 0.0
            self._woken.set()


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
