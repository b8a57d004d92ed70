"""What config.ini may say: settings, their types and checks; loaded once by each process of the service.

May import `errors`, and in `ansible_version` nothing of Ansible's code.
"""

from flansible.config.settings import EMBEDDED, KEYS, Settings, find_config, is_loopback, load
from flansible.config.values import comma_list

__all__ = ["EMBEDDED", "KEYS", "Settings", "comma_list", "find_config", "is_loopback", "load"]
