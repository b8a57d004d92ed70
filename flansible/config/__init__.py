"""Settings: what config.ini may contain, with types and checks; each process of the service loads them once.

May import `errors`, and in `ansible_version` nothing of Ansible's code.
"""

from flansible.config.loading import find_config, load
from flansible.config.settings import EMBEDDED, KEYS, Settings, is_loopback
from flansible.config.values import comma_list

__all__ = ["EMBEDDED", "KEYS", "Settings", "comma_list", "find_config", "is_loopback", "load"]
