"""Names of variables that restricted users may not set. Standard library only: web and runs check them."""

from __future__ import annotations

import re

# Variables that decide where and how Ansible and Mitogen connect; ssh takes its host from inventory_hostname and
# delegated_vars, if from nothing else. The others describe the run's place and hosts: Ansible sets most of them itself,
# and plays decide by them.
CONNECTION_VARIABLE = re.compile(
    r"_?ansible_|mitogen_|delegated_vars"
    r"|(?:inventory_hostname(?:_short)?|inventory_(?:dir|file)|playbook_dir|role_path|play_hosts"
    r"|groups|group_names|hostvars|vars|omit)$"
)
