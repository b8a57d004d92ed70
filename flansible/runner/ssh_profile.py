"""The fast ssh profile: other defaults for Ansible's ssh connection, in one run.

Called in the run's process before Ansible reads its options. Defaults, not environment variables: those would win over
the user's ansible.cfg, while here whatever is set anywhere, for all or for one host, wins over us. Only the ssh plugin
of the installation has them; local and other connections keep their own.
"""

from __future__ import annotations

from typing import Any

from ansible import constants


def apply(masters_directory: str | None) -> None:
    """masters_directory: where this user's masters have their sockets; None: the profile is not in use."""
    if masters_directory is None:
        return
    options: dict[str, Any] = constants.config.get_configuration_definitions("connection", "ssh")
    for name, default in (("pipelining", True), ("control_path_dir", masters_directory)):
        options[name] = {**options[name], "default": default}
