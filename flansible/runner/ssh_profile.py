"""The fast ssh profile: other defaults for Ansible's ssh connection, in one run.

Called in the run's process before Ansible reads its options. Defaults, not environment variables: those would override
the user's ansible.cfg, while any setting, for all hosts or one, overrides these. Only the installed ssh plugin has
them; local and other connections keep their own.
"""

from __future__ import annotations

import os

import ansible.plugins.connection

from flansible.runner import plugin_options_cache

_SSH_PLUGIN = os.path.join(os.path.dirname(str(ansible.plugins.connection.__file__)), "ssh.py")


def apply(masters_directory: str | None) -> None:
    """Applies the profile. masters_directory: of this user's control sockets; None: the profile is not in use."""
    if masters_directory is not None:
        plugin_options_cache.override_defaults(_SSH_PLUGIN, {"pipelining": True, "control_path_dir": masters_directory})
