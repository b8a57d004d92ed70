"""Says in a failed run's description that its sandbox may be the cause, and what to add where.

Called by the supervisor with the output of a sandboxed run. Whether a file exists outside is not looked at: the answer
would tell the user.
"""

from __future__ import annotations

_HOST_KEY = b"Host key verification failed"
# What ansible-core prints of its own files; texts of modules, which work on the hosts, begin otherwise.
_NOT_FOUND = (
    b"was not found",
    b"could not be found",
    b"ould not find or access",
    b"Could not find file",
    b"Could not find specified file",
    b"ould not find src=",
    b"couldn't resolve module/action",
    b"Unable to find ",
)
_OVERLAP = max(map(len, (_HOST_KEY, *_NOT_FOUND))) - 1


class ConfinementHints:
    """Searches the output, in whatever pieces it arrives."""

    def __init__(self) -> None:
        self._tail = b""
        self._host_key = False
        self._not_found = False

    def feed(self, data: bytes) -> None:
        if self._host_key and self._not_found:
            return
        text = self._tail + data
        self._host_key = self._host_key or _HOST_KEY in text
        self._not_found = self._not_found or any(words in text for words in _NOT_FOUND)
        self._tail = text[-_OVERLAP:]

    def sentence(self, user: str) -> str:
        """Returns the sentence for the description; empty if nothing that was printed calls for one."""
        if self._host_key:
            return (
                "The run was confined and knows only the host keys in .ssh/known_hosts of the folder that "
                f"`flansible home {user}` prints: add the host's there."
            )
        if self._not_found:
            return (
                f"The run was confined: if what it did not find is on this machine, add it to `paths` of {user} in "
                "rbac.json; roles and collections may also lie below playbook_root."
            )
        return ""
