"""Names of Ansible variables that rights depend on. Standard library only: web checks them, and so does the run."""

from __future__ import annotations

import re

# Variables by which Ansible is told where and how to connect, Mitogen's among them; ssh takes its host from
# inventory_hostname and delegated_vars, if from nothing else. The others say of a run where it is and what is around:
# most of them Ansible sets again itself, and plays decide by them.
CONNECTION_VARIABLE = re.compile(
    r"_?ansible_|mitogen_|delegated_vars"
    r"|(?:inventory_hostname(?:_short)?|inventory_(?:dir|file)|playbook_dir|role_path|play_hosts"
    r"|groups|group_names|hostvars|vars|omit)$"
)
