"""What a failed run printed, and the sentence that its description gets when it was confined."""

from __future__ import annotations

import pytest

from flansible.worker.confinement_hints import ConfinementHints

HOST_KEY = b'"msg": "Failed to connect to the host via ssh: Host key verification failed."'
PATHS = "add it to `paths` of dev in rbac.json"
PRINTED = {
    "a host key": (HOST_KEY, "flansible home dev"),
    "a role": (b"[ERROR]: the role 'x' was not found in /srv/playbooks/roles:/srv/playbooks", PATHS),
    "a module": (b"couldn't resolve module/action 'ns.coll.x'. This often indicates", PATHS),
    "a file": (b"Could not find or access '/srv/x' on the Ansible Controller.", PATHS),
    "both": (HOST_KEY + b"\nthe role 'x' was not found in y", "flansible home dev"),
    "a service on a host": (b"Could not find the requested service nginx: host", ""),
    "a command on a host": (b"/bin/sh: 1: x: not found", ""),
}


@pytest.mark.parametrize(("printed", "words"), PRINTED.values(), ids=PRINTED)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_sentence_says_what_to_add_where(printed: bytes, words: str, size: int) -> None:
    hints = ConfinementHints()
    for start in range(0, len(printed), size):
        hints.feed(printed[start : start + size])
    sentence = hints.sentence("dev")
    assert words in sentence
    assert sentence.startswith("The run was confined") == bool(words)
    assert sentence.count(". ") == 0
