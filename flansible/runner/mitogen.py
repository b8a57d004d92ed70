"""Mitogen for one run, when its request selects it: a strategy plugin that replaces Ansible's way to reach hosts.

Called in the run's process. A playbook's own `strategy:` wins, as it does over ansible.cfg. Other runs import nothing
of it.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from ansible.playbook.play import Play
from ansible.plugins import loader

from flansible.runner.ansible_internals import replace
from flansible.runner.cleanup import RunFiles


def use(name: str | None, files: RunFiles | None) -> None:
    """Makes `name` the default strategy of plays. Raises ImportError when Mitogen is not installed."""
    if name is None:
        return
    plugins = importlib.import_module("ansible_mitogen.plugins.strategy")
    loader.strategy_loader.add_directory(os.path.dirname(str(plugins.__file__)))
    replace(Play.fattributes["strategy"], "default", name)
    if files is not None:
        _keep_socket_in(files.folder)


def _keep_socket_in(folder: str) -> None:
    # Mitogen makes it in TMPDIR and removes it at its end; a run that is canceled would leave it there.
    unix: Any = importlib.import_module("mitogen.unix")
    unix.make_socket_path = lambda: os.path.join(folder, f"mitogen-{os.getpid()}")
