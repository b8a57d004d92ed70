"""The configuration of git for projects: it has no other."""

from __future__ import annotations

from collections.abc import Mapping

# A fetch whose connection is dead keeps others of this project waiting: http ends after a minute without a byte.
CONFIGURATION = """\
[core]
\thooksPath = /dev/null
\tfsmonitor = false
\tsymlinks = true
\tprotectNTFS = true
[gc]
\tauto = 0
[maintenance]
\tauto = false
[protocol "ext"]
\tallow = never
[transfer]
\tfsckObjects = true
[fetch "fsck"]
\tzeroPaddedFilemode = ignore
\tbadTimezone = ignore
\tmissingSpaceBeforeDate = ignore
\tmissingNameBeforeEmail = ignore
\tbadEmail = ignore
[fetch]
\tunpackLimit = 1
\twriteCommitGraph = false
\trecurseSubmodules = false
[submodule]
\trecurse = false
[advice]
\tdetachedHead = false
[safe]
\tdirectory = *
[http]
\tfollowRedirects = initial
[gpg]
\tformat = ssh
"""


def as_variables(values: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables by which one git has these values beside."""
    numbered = list(enumerate(values.items()))
    return {
        "GIT_CONFIG_COUNT": str(len(numbered)),
        **{f"GIT_CONFIG_KEY_{number}": name for number, (name, _) in numbered},
        **{f"GIT_CONFIG_VALUE_{number}": value for number, (_, value) in numbered},
    }
