"""Gathers, from a task's events, what each host reported: the order of hosts in the results, and their own verdicts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from flansible.history.gathered_facts import GatheredFacts
from flansible.history.schema import HOST_VERDICTS, VERDICT_BITS

_FAILED = ("failed", "unreachable")


@dataclass
class HostResult:
    """One host in one task. seqs: of its results; groups: of the inventory that it was in, None: not known."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    seqs: list[int] = field(default_factory=list)
    groups: tuple[str, ...] | None = None

    @property
    def has_failed(self) -> bool:
        return any(self.counts[verdict] for verdict in _FAILED)

    @property
    def verdict(self) -> str:
        """How the host fared in the task as a whole."""
        return next((verdict for verdict in HOST_VERDICTS if self.counts[verdict]), "skipped")


class HostResults:
    """All hosts of one task. stats_seq: the event with the counts of every host, None without one; facts: those that it
    gathered, where keeps_facts."""

    def __init__(self, keeps_facts: bool = False) -> None:
        self.stats_seq: int | None = None
        self.facts = GatheredFacts()
        self._keeps_facts = keeps_facts
        self._hosts: dict[str, HostResult] = {}

    def add(self, first_seq: int, texts: Sequence[bytes]) -> int:
        """Takes events in, in order; returns the bits of the verdicts that they have."""
        bits = 0
        for seq, text in enumerate(texts, first_seq):
            event = json.loads(text)
            kind, verdict = event.get("event"), event.get("verdict")
            bits |= VERDICT_BITS.get(verdict, 0)
            if kind == "restart":
                # The run was lost and began again: results are those of the last attempt.
                self._hosts.clear()
                self.facts.clear()
                self.stats_seq = None
            elif kind == "stats":
                self.stats_seq = seq
            elif kind == "host_result" and event.get("host"):
                host = self._hosts.setdefault(str(event["host"]), HostResult(str(event["host"])))
                host.seqs.append(seq)
                if verdict:
                    host.counts[str(verdict)] += 1
                if "groups" in event:
                    host.groups = tuple(map(str, event["groups"]))
                if self._keeps_facts:
                    self.facts.add(event)
        return bits

    def in_order(self) -> Iterator[HostResult]:
        """Yields the hosts as the results list them: those with a failure first, each group by name."""
        yield from sorted(self._hosts.values(), key=_place)


def _place(host: HostResult) -> tuple[bool, bytes]:
    return not host.has_failed, host.name.encode(errors="backslashreplace")
