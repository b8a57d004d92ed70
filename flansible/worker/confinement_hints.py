"""Says in a failed run's description that its sandbox, or a read-only tree, may be the cause, and what to do.

Called by the supervisor with the plain output of such a run. Whether a file exists outside is not looked at: the
answer would tell the user.
"""

from __future__ import annotations

import os
import re

from flansible.models import split_principal

_LONGEST_LINE = 16 * 1024
# Lines that Ansible, or ssh, prints itself, with any stdout callback; what modules print stands within them, as JSON.
_LINES = re.compile(
    rb"^(?:(?P<ignored>\.\.\.ignoring)|(?P<next>PLAY |TASK |RUNNING HANDLER )|ERROR! |\[ERROR\]: |fatal: \[|failed: \["
    rb"|\[WARNING\]: Unable to find '|[^\s|]{1,255} \| (?:FAILED|UNREACHABLE)!|Could not find |Host key verification)"
    rb"[^\n]*",
    re.MULTILINE,
)
_HOST_KEY = re.compile(rb"Host key verification failed")
# What ansible-core 2.19 says of its own files. A quote may be escaped as in JSON.
# No wildcard can pass what ends it: the time is linear, whatever a hostile run prints.
_NOT_FOUND = re.compile(
    rb"the role '[^\n']{1,4096}' was not found in "
    rb"|[Tt]he \w{1,40} plugin \\?['\"][^\n'\"]{1,4096}['\"] was not found"
    rb"|[Tt]he module [^\n ]{1,4096} was not found in configured module paths"
    rb"|couldn't resolve module/action "
    rb"|Cannot resolve '[^\n']{1,4096}' to an action or module"
    rb"|[Cc]ould not find or access '"
    rb"|Could not find file(?:$|\\n| on the Ansible Controller)"
    rb"|Could not find specified file in role: "
    rb"|[Cc]ould not find src="
    rb"|password file [^\n ]{1,4096} was not found"
    rb"|the playbook: [^\n ]{1,4096} could not be found"
    rb"|the template file [^\n ]{1,4096} could not be found for the lookup"
    rb"|Unable to find limit file "
    rb"|Unable to find file matching "
    rb"|Unable to find '[^\n']{1,4096}' in expected paths"
)
_NOT_WRITABLE = re.compile(rb"Read-only file system| not writable|Permission denied")


class ConfinementHints:
    """Searches the output, in whatever pieces it arrives. Failures that a play ignores do not count.

    tree: of a project, which the run may not write in.
    """

    def __init__(self, tree: str = "") -> None:
        self._tree = os.fsencode(tree)
        self._unfinished = b""
        self._play_task: set[str] = set()  # what the current play task printed, which may turn out to be ignored
        self._found: set[str] = set()

    def feed(self, data: bytes) -> None:
        complete, newline, rest = data.rpartition(b"\n")
        if newline:
            self._search(self._unfinished + complete)
            self._unfinished = b""
        self._unfinished += rest[: _LONGEST_LINE - len(self._unfinished)]

    def _search(self, text: bytes) -> None:
        for line in _LINES.finditer(text):
            if line["ignored"]:
                self._play_task.clear()
            elif line["next"]:
                self._found |= self._play_task
                self._play_task.clear()
            else:
                printed = line[0][:_LONGEST_LINE].rstrip()
                self._play_task |= {"host key"} if _HOST_KEY.search(printed) else set()
                self._play_task |= {"not found"} if _NOT_FOUND.search(printed) else set()
                if self._tree and self._tree in printed and _NOT_WRITABLE.search(printed):
                    self._play_task.add("tree")

    def sentence(self, principal: str, project: str = "", is_confined: bool = True) -> str:
        """Returns the sentence for the description; empty if nothing that was printed calls for one."""
        self._search(self._unfinished)
        found = self._found | self._play_task
        if "tree" in found:
            return (
                f"Runs share the files of project {project} and cannot write among them: with `private_copy` in the "
                "project each run has a copy that it may write."
            )
        if not is_confined:
            return ""
        user, group = split_principal(principal)
        command = f"flansible home {user}" + (f" --group {group}" if group else "")
        entry = f"group {group}" if group else user
        if "host key" in found:
            return (
                "The run was confined and knows only the host keys in .ssh/known_hosts of the folder that "
                f"`{command}` prints: add the host's there."
            )
        if "not found" in found:
            return (
                f"The run was confined: if what it did not find is on this machine, add it to `paths` of {entry} in "
                "rbac.json; roles and collections may also lie below playbook_root."
            )
        return ""
