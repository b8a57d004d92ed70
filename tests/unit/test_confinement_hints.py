"""What a failed run printed, and the sentence that its description gets when it was confined."""

from __future__ import annotations

import pytest

from flansible.worker.confinement_hints import ConfinementHints

HOST_KEY = (
    b'fatal: [web1]: UNREACHABLE! => {"msg": "Failed to connect to the host via ssh: Host key verification failed."}'
)
FATAL = b'fatal: [web1]: FAILED! => {"changed": false, "msg": "%s"}'
FILE = FATAL % b"could not find src=/srv/x"
SSH = b"Host key verification failed.\nOrigin: site.yml:4:5\n"
PATHS = "add it to `paths` of dev in rbac.json"
PRINTED = {
    "a host key": (HOST_KEY, "flansible home dev"),
    "a role": (b"[ERROR]: the role 'x' was not found in /srv/playbooks/roles:/srv/playbooks", PATHS),
    "a module": (b"[ERROR]: couldn't resolve module/action 'ns.coll.x'. This often indicates", PATHS),
    "a module of an ad-hoc command": (b"[ERROR]: Task failed: Cannot resolve 'x.y.z' to an action or module.", PATHS),
    "a file": (FATAL % b"Could not find or access '/srv/x' on the Ansible Controller.", PATHS),
    "a file, with another callback": (b'web1 | FAILED! => {"msg": "Could not find or access \'/srv/x\'"}', PATHS),
    "a file, below its reason": (b"ERROR! Unable to retrieve file contents\nCould not find or access '/srv/x'", PATHS),
    "a file of a lookup": (b"[WARNING]: Unable to find '/srv/x' in expected paths (use -vvvvv to see paths)", PATHS),
    "a lookup": (FATAL % b"Task failed: The lookup plugin 'ns.coll.x' was not found.", PATHS),
    "a password file": (b"[ERROR]: The vault password file /srv/x was not found", PATHS),
    "a host key that git asks for": (b"Host key verification failed.\r\nfatal: Could not read", "flansible home dev"),
    "a host key, and ssh says more before": (b"[ERROR]: Task failed: No key is known\n" + SSH, "flansible home dev"),
    "both": (HOST_KEY + b"\n[ERROR]: the role 'x' was not found in y", "flansible home dev"),
    "a failure before another play task": (FILE + b"\n\nTASK [x] ****\n" + FATAL % b"y" + b"\n...ignoring\n", PATHS),
    "an ignored failure": (FILE + b"\n...ignoring\n\nTASK [x] ****\n" + FATAL % b"it is wrong", ""),
    "an ignored host key": (HOST_KEY + b"\n...ignoring\n\nTASK [x] ****\n" + FATAL % b"it is wrong", ""),
    "a text of the playbook": (
        b"[ERROR]: Task failed: User bob was not found\n" + FATAL % b"User bob was not found",
        "",
    ),
    "a text in quotes": (FATAL % b"User 'bob' was not found in the directory; Unable to find him", ""),
    "a text that a command prints": (b'ok: [web1] => {\n    "msg": "the role \'x\' was not found in y"\n}', ""),
    "a service on a host": (FATAL % b"Could not find the requested service nginx: host", ""),
    "a command on a host": (FATAL % b"/bin/sh: 1: x: not found", ""),
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


TREE = "/var/lib/flansible/projects/shop/shown/trees/" + "c" * 40
UNWRITABLE = {
    "a module": (FATAL % f"Destination {TREE} not writable".encode(), True),
    "a lookup": (FATAL % f"[Errno 30] Read-only file system: '{TREE}/credentials'".encode(), True),
    "a service that is not root": (FATAL % f"[Errno 13] Permission denied: '{TREE}/new'".encode(), True),
    "a file of a host": (FATAL % b"[Errno 30] Read-only file system: '/srv/new'", False),
    "a file that is there": (FATAL % f"{TREE}/site.yml is wrong".encode(), False),
    "an ignored failure": (FATAL % f"Destination {TREE} not writable".encode() + b"\n...ignoring\n", False),
}


@pytest.mark.parametrize(("printed", "is_hinted"), UNWRITABLE.values(), ids=UNWRITABLE)
@pytest.mark.parametrize("is_confined", [True, False])
def test_a_playbook_that_writes_beside_itself_is_told_of_private_copies(
    printed: bytes, is_hinted: bool, is_confined: bool
) -> None:
    hints = ConfinementHints(TREE)
    hints.feed(printed + b"\n")
    assert ("`private_copy`" in hints.sentence("dev", "shop", is_confined)) == is_hinted
    without = ConfinementHints()  # of a run that has its copy
    without.feed(printed + b"\n")
    assert "private_copy" not in without.sentence("dev", "shop", is_confined)
