"""Names of Ansible variables that rights depend on. Standard library only: web checks them, and so does the run."""

from __future__ import annotations

import re

# Variables by which Ansible is told where and how to connect; ssh takes its host from the last two, if nothing else.
CONNECTION_VARIABLE = re.compile(r"_?ansible_|inventory_hostname$|delegated_vars")
