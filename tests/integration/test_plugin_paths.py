"""A run finds the plugins of its own configuration, as they are when it starts: each type of plugin, in each place.

The same fork server serves all runs of a place: what it remembers must not stand in for what lies there now.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flansible.worker.forkserver_pool import ForkServerPool
from tests.helpers.direct_runs import DirectRun

# What each type prints where it is used: its name and this version of it.
PLUGINS = {
    "filter": "class FilterModule:\n    def filters(self): return {'mark_filter': lambda x: 'filter=@'}\n",
    "test": "class TestModule:\n    def tests(self): return {'mark_test': lambda x: x == '@'}\n",
    "lookup": "from ansible.plugins.lookup import LookupBase\n"
    "class LookupModule(LookupBase):\n    def run(self, terms, variables=None, **kwargs): return ['lookup=@']\n",
    "action": "from ansible.plugins.action import ActionBase\n"
    "class ActionModule(ActionBase):\n    def run(self, tmp=None, task_vars=None): return {'msg': 'action=@'}\n",
    "connection": "from ansible.plugins.connection.local import Connection as Local\n"
    "class Connection(Local):\n    transport = 'mark_connection'\n"
    "    def exec_command(self, cmd, in_data=None, sudoable=True): return 0, b'connection=@', b''\n",
    "become": "DOCUMENTATION = 'name: mark_become\\ndescription: x\\noptions: {}'\n"
    "from ansible.plugins.become import BecomeBase\n"
    "class BecomeModule(BecomeBase):\n    name = 'mark_become'\n"
    "    def build_become_command(self, cmd, shell): return 'echo become=@'\n",
    "shell": "DOCUMENTATION = 'name: mark_shell\\ndescription: x\\nextends_documentation_fragment: [shell_common]'\n"
    "from ansible.plugins.shell.sh import ShellModule as Sh\nfrom ansible.utils.display import Display\n"
    "class ShellModule(Sh):\n    SHELL_FAMILY = 'mark_shell'\n    def mkdtemp(self, *args, **kwargs):\n"
    "        Display().display('shell=@')\n        return super().mkdtemp(*args, **kwargs)\n",
    "strategy": "from ansible.plugins.strategy.linear import StrategyModule as Linear, display\n"
    "class StrategyModule(Linear):\n    def run(self, *args):\n"
    "        display.display('strategy=@')\n        return super().run(*args)\n",
    "vars": "from ansible.plugins.vars import BaseVarsPlugin\n"
    "class VarsModule(BaseVarsPlugin):\n    def get_vars(self, *args, **kwargs): return {'marked': 'vars=@'}\n",
    "callback": "from ansible.plugins.callback import CallbackBase\n"
    "class CallbackModule(CallbackBase):\n    CALLBACK_NAME, CALLBACK_VERSION, CALLBACK_TYPE = 'm', 2.0, 'aggregate'\n"
    "    def v2_playbook_on_stats(self, stats): self._display.display('callback=@')\n",
    "inventory": "DOCUMENTATION = 'name: mark_inventory\\ndescription: x\\noptions: {}'\n"
    "from ansible.plugins.inventory import BaseInventoryPlugin\n"
    "class InventoryModule(BaseInventoryPlugin):\n    NAME = 'mark_inventory'\n"
    "    def verify_file(self, path): return path.endswith('.mark')\n"
    "    def parse(self, inventory, loader, path, cache=True):\n"
    "        inventory.add_host('one')\n        inventory.set_variable('one', 'listed', 'inventory=@')\n",
    "cache": "from ansible.plugins.cache.memory import CacheModule as Memory\n"
    "from ansible.utils.display import Display\n"
    "class CacheModule(Memory):\n    def __init__(self, *args, **kwargs):\n"
    "        Display().display('cache=@')\n        super().__init__(*args, **kwargs)\n",
    "module_utils": "VALUE = 'module_utils=@'\n",
    "library": "from ansible.module_utils.basic import AnsibleModule\n@IMPORT\n"
    "module = AnsibleModule({})\nmodule.exit_json(msg='library=@ ' + VALUE)\n",
}
# One play task for each, so that one that is missing says so by itself.
TASKS = {
    "filter": "debug: msg={{ 'x' | mark_filter }}",
    "test": "debug: msg=test={{ 'one' if 'one' is mark_test else 'two' if 'two' is mark_test else 'none' }}",
    "lookup": "debug: msg={{ lookup('mark_lookup') }}",
    "action": "mark_action:",
    "connection": "raw: 'true'\n      connection: mark_connection",
    "become": "raw: 'true'\n      become: true\n      become_method: mark_become",
    "shell": "mark_library:\n      vars: {ansible_shell_type: mark_shell}",
    "library": "mark_library:",
    "vars": "debug: msg={{ marked }}",
    "inventory": "debug: msg={{ listed }}",
}
# Plugin type -> the setting that names its paths, and the folder's name beside a playbook or in a role.
SETTINGS = {
    "library": ("library", "ANSIBLE_LIBRARY", "library"),
    "module_utils": ("module_utils", "ANSIBLE_MODULE_UTILS", "module_utils"),
    **{
        kind: (f"{kind}_plugins", f"ANSIBLE_{kind.upper()}_PLUGINS", f"{kind}_plugins")
        for kind in PLUGINS
        if kind not in ("library", "module_utils")
    },
}
ENABLED = {
    "callbacks_enabled": "mark_callback",
    "fact_caching": "mark_cache",
    "vars_plugins_enabled": "mark_vars",
}
CONFIGURED = tuple(kind for kind in PLUGINS if kind != "shell")  # no setting names the paths of shell plugins
IN_ROLE = ("filter", "test", "lookup", "action", "library", "module_utils")
IN_COLLECTION = (*IN_ROLE, "connection", "become", "strategy")
BESIDE = (*IN_ROLE, "connection", "become", "strategy", "shell", "callback", "vars")


@dataclass
class Place:
    """Where plugins lie: writes them, and the playbook that uses those of these types."""

    root: Path
    kinds: tuple[str, ...]
    folders: dict[str, Path]
    environment: dict[str, str]
    prefix: str = ""
    in_role: bool = False
    written: int = 1_700_000_000

    def write(self, version: str) -> None:
        for kind in self.kinds:
            module = "ansible.module_utils.mark_module_utils"
            if self.prefix:
                module = f"ansible_collections.{self.prefix}plugins.module_utils.mark_module_utils"
            text = PLUGINS[kind].replace("@IMPORT", f"from {module} import VALUE").replace("@", version)
            self.folders[kind].mkdir(parents=True, exist_ok=True)
            path = self.folders[kind] / f"mark_{kind}.py"
            path.write_text(text)
            # Python tells bytecode's source by size and whole seconds: both versions are as long.
            os.utime(path, (self.written, self.written))
        self.written += 1
        p = self.prefix
        lines = [TASKS[kind] for kind in self.kinds if kind in TASKS]
        tasks = "".join(f"    - {line}\n      ignore_errors: true\n" for line in lines)
        for kind in IN_COLLECTION if p else ():
            tasks = tasks.replace(f"mark_{kind}", f"{p}mark_{kind}")
        strategy = f"  strategy: {p}mark_strategy\n" if "strategy" in self.kinds else ""
        interpreter = f"  vars: {{ansible_python_interpreter: {sys.executable}}}\n"
        play = f"- hosts: all\n  gather_facts: false\n  connection: local\n{strategy}{interpreter}"
        if self.in_role:
            (self.root / "roles/marked/tasks").mkdir(parents=True, exist_ok=True)
            (self.root / "roles/marked/tasks/main.yml").write_text(tasks.replace("    ", ""))
            play += "  roles: [marked]\n"
        else:
            play += f"  tasks:\n{tasks}"
        (self.root / "play.yml").write_text(play)
        (self.root / "hosts.mark").write_text("")
        (self.root / "hosts").write_text("one\n")

    def remove(self) -> None:
        for kind in self.kinds:
            shutil.rmtree(self.folders[kind])

    def seen(self, servers: ForkServerPool) -> dict[str, str]:
        """Which version of each type this run's output shows."""
        inventory = "hosts.mark" if "inventory" in self.kinds else "hosts"
        with DirectRun(servers, self.root, "-v", "-i", inventory, "play.yml", environment=self.environment) as run:
            text = run.wait().text
        return {
            kind: next((version for version in ("one", "two") if f"{kind}={version}" in text), "none")
            for kind in self.kinds
        }


def by_setting(root: Path, home: Path) -> Place:
    """ansible.cfg with relative paths."""
    folders = {kind: root / "plugins" / kind for kind in PLUGINS}
    paths = "".join(f"{SETTINGS[kind][0]} = ./plugins/{kind}\n" for kind in PLUGINS)
    enabled = "".join(f"{name} = {value}\n" for name, value in ENABLED.items())
    (root / "ansible.cfg").write_text(
        f"[defaults]\n{paths}{enabled}[inventory]\nenable_plugins = mark_inventory, ini\n"
        "[privilege_escalation]\nbecome_plugins = ./plugins/become\n"
    )
    return Place(root, CONFIGURED, folders, {})


def by_variable(root: Path, home: Path) -> Place:
    """ANSIBLE_* variables of the request."""
    folders = {kind: root / "plugins" / kind for kind in PLUGINS}
    environment = {SETTINGS[kind][1]: str(folders[kind]) for kind in PLUGINS}
    environment |= {
        "ANSIBLE_CALLBACKS_ENABLED": "mark_callback",
        "ANSIBLE_CACHE_PLUGIN": "mark_cache",
        "ANSIBLE_VARS_ENABLED": "mark_vars",
        "ANSIBLE_INVENTORY_ENABLED": "mark_inventory,ini",
    }
    return Place(root, CONFIGURED, folders, environment)


def at_home(root: Path, home: Path) -> Place:
    """The folders of ~/.ansible/plugins."""
    names = {"library": "modules", "module_utils": "module_utils"}
    folders = {kind: home / ".ansible/plugins" / names.get(kind, kind) for kind in PLUGINS}
    kinds = tuple(kind for kind in CONFIGURED if kind != "inventory")
    (root / "ansible.cfg").write_text(
        "[defaults]\n" + "".join(f"{name} = {value}\n" for name, value in ENABLED.items())
    )
    return Place(root, kinds, folders, {})


def beside(root: Path, home: Path) -> Place:
    """The folders beside a playbook."""
    (root / "ansible.cfg").write_text(
        "[defaults]\ncallbacks_enabled = mark_callback\nvars_plugins_enabled = mark_vars\n"
    )
    return Place(root, BESIDE, {kind: root / SETTINGS[kind][2] for kind in PLUGINS}, {})


def in_a_role(root: Path, home: Path) -> Place:
    return Place(root, IN_ROLE, {kind: root / "roles/marked" / SETTINGS[kind][2] for kind in PLUGINS}, {}, in_role=True)


def in_a_collection(root: Path, home: Path) -> Place:
    """A collection beside the playbook."""
    top = root / "collections/ansible_collections/own/marks/plugins"
    folders = {kind: top / {"library": "modules"}.get(kind, kind) for kind in PLUGINS}
    return Place(root, IN_COLLECTION, folders, {}, prefix="own.marks.")


@pytest.fixture
def servers() -> Iterator[ForkServerPool]:
    servers = ForkServerPool(1)
    yield servers
    servers.close()


@pytest.mark.by_day(2)
@pytest.mark.parametrize("make", [by_setting, by_variable, at_home, beside, in_a_role, in_a_collection])
def test_plugins_that_are_added_edited_or_removed_are_what_the_next_run_has(
    make: type[Place], servers: ForkServerPool, tmp_path: Path, _home: Path
) -> None:
    place = make(tmp_path, _home)
    place.write("one")
    place.remove()
    everything = dict.fromkeys(place.kinds, "none")
    assert place.seen(servers) == everything
    for version in "one", "two":
        place.write(version)
        assert place.seen(servers) == dict.fromkeys(place.kinds, version)
    place.remove()
    assert place.seen(servers) == everything


# All types that Ansible has, also those that no run here uses: asked of the loaders themselves.

# A program that prints each loader of Ansible's: what its plugins are, and which setting names their paths.
LIST_LOADERS = """
import json
from ansible import constants as C
from ansible.plugins import loader
definitions = C.config.get_configuration_definitions()
paths = {name: found for name, found in definitions.items() if found.get("type") == "pathspec" and found.get("ini")}
known = []
for name, one in loader.get_all_plugin_loaders():
    found = next((found for key, found in paths.items() if one.config == getattr(C, key, None)), None)
    known.append({"name": name, "subdir": one.subdir, "class": one.class_name, "base": one.base_class,
                  "package": one.package, "folder": one.config[0].rpartition("/")[2],
                  "setting": found and found["ini"][0]["key"], "variable": found and found["env"][0]["name"]})
print(json.dumps(known))
"""
# A lookup that asks each loader for its plugin; those of filters and tests give functions, not the classes around them.
ASK_LOADERS = """
import json
from ansible.plugins import loader
from ansible.plugins.lookup import LookupBase
def asked(one):
    name = "asked_" + one.subdir
    if isinstance(one, loader.Jinja2Loader):
        found = one.get(name)
        return found.j2_function.VERSION if found else "none"
    if one.class_name:
        # The loader of caches raises when there is none.
        found = loader.PluginLoader.get(one, name, class_only=True)
        return found.VERSION if found else "none"
    path = one.find_plugin(name, mod_type=".psm1" if one is loader.ps_module_utils_loader else ".py")
    return open(path).read().split("'")[1] if path else "none"
class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        return ["asked=" + json.dumps({name: asked(one) for name, one in loader.get_all_plugin_loaders()})]
"""
MAPS = {"filter_plugins": "filters", "test_plugins": "tests"}


@pytest.fixture(scope="module")
def loaders() -> list[dict[str, Any]]:
    command = [sys.executable, "-P", "-c", LIST_LOADERS]
    return list(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def text_of(loader: dict[str, Any], version: str) -> str:
    """A plugin of this type that has its version."""
    name = f"asked_{loader['subdir']}"
    if method := MAPS.get(loader["subdir"]):
        function = f"def mark(*args): pass\nmark.VERSION = '{version}'\n"
        return f"{function}class {loader['class']}:\n    def {method}(self): return {{'{name}': mark}}\n"
    if not loader["class"]:
        return f"VERSION = '{version}'\n"
    # Ansible uses each vars plugin that it finds in such a place.
    base = loader["base"] or {"vars_plugins": "BaseVarsPlugin"}.get(loader["subdir"], "object")
    header = f"from {loader['package']} import {base}\n" if base != "object" else ""
    body = f"    VERSION = '{version}'\n    def get_vars(self, *args, **kwargs): return {{}}\n"
    return f"{header}class {loader['class']}({base}):\n{body}"


@pytest.mark.by_day(2)
@pytest.mark.parametrize("place", ["a setting", "a variable", "home", "beside the playbook", "a role"])
def test_each_loader_of_ansibles_finds_what_was_added_edited_or_removed(
    place: str, loaders: list[dict[str, Any]], servers: ForkServerPool, tmp_path: Path, _home: Path
) -> None:
    named = [one for one in loaders if place in ("beside the playbook", "a role") or one["setting"]]
    folders = {
        "a setting": lambda one: tmp_path / "own" / one["subdir"],
        "a variable": lambda one: tmp_path / "own" / one["subdir"],
        "home": lambda one: _home / ".ansible/plugins" / one["folder"],
        "beside the playbook": lambda one: tmp_path / one["subdir"],
        "a role": lambda one: tmp_path / "roles/asking" / one["subdir"],
    }
    lines = [f"{one['setting']} = ./own/{one['subdir']}" for one in named if place == "a setting"]
    environment = {one["variable"]: str(folders[place](one)) for one in named if place == "a variable"}
    asking = tmp_path / "roles/asking"
    for path, text in {
        tmp_path / "ansible.cfg": "\n".join(["[defaults]", *dict.fromkeys(lines), ""]),
        tmp_path / "play.yml": "- hosts: localhost\n  gather_facts: false\n  roles: [asking]\n",
        asking / "tasks/main.yml": "- debug: msg={{ lookup('ask') }}\n",
        asking / "lookup_plugins/ask.py": ASK_LOADERS,
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def seen() -> dict[str, str]:
        with DirectRun(servers, tmp_path, "play.yml", environment=environment) as run:
            text = run.wait().text
        _, found, answer = text.partition("asked=")
        assert found, text
        return dict(json.loads(json.loads(f'"{answer.partition("}")[0]}}}"')))

    def write(version: str, seconds: int) -> None:
        for one in named:
            for ending in (".py", ".psm1"):
                path = folders[place](one) / f"asked_{one['subdir']}{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text_of(one, version))
                os.utime(path, (seconds, seconds))

    def remove() -> None:
        for one in named:
            for ending in (".py", ".psm1"):
                (folders[place](one) / f"asked_{one['subdir']}{ending}").unlink(missing_ok=True)

    unnamed = {one["name"]: "none" for one in loaders}
    # What a loader has searched while the fork server started: only folders that are there.
    write("one", 0)
    remove()
    assert len(named) >= len(loaders) - 1 >= 19 and seen() == unnamed
    for seconds, version in enumerate(("one", "two"), 1_700_000_000):
        write(version, seconds)
        assert seen() == unnamed | {one["name"]: version for one in named}
    remove()
    assert seen() == unnamed


@pytest.mark.parametrize("place", ["a setting", "beside the playbook"])
def test_a_documentation_fragment_gives_a_plugin_the_options_that_it_has_now(
    place: str, servers: ForkServerPool, tmp_path: Path
) -> None:
    folder = tmp_path / ("own" if place == "a setting" else "doc_fragments")
    lookup = (
        "DOCUMENTATION = 'name: marked\\ndescription: x\\noptions: {}\\nextends_documentation_fragment: [mark]'\n"
        "from ansible.plugins.lookup import LookupBase\n"
        "class LookupModule(LookupBase):\n    def run(self, terms, variables=None, **kwargs):\n"
        "        self.set_options(direct=kwargs)\n        return [self.get_option('word')]\n"
    )
    (tmp_path / "lookup_plugins").mkdir()
    (tmp_path / "lookup_plugins/marked.py").write_text(lookup)
    setting = "doc_fragment_plugins = ./own\n" if place == "a setting" else ""
    (tmp_path / "ansible.cfg").write_text(f"[defaults]\n{setting}")
    task = "    - debug: msg=word={{ lookup('marked') }}\n"
    (tmp_path / "play.yml").write_text(f"- hosts: localhost\n  gather_facts: false\n  tasks:\n{task}")
    folder.mkdir()
    for seconds, version in enumerate(("one", "two"), 1_700_000_000):
        options = f"options:\\n  word:\\n    description: x\\n    default: {version}"
        (folder / "mark.py").write_text(f"class ModuleDocFragment:\n    DOCUMENTATION = '{options}'\n")
        os.utime(folder / "mark.py", (seconds, seconds))
        with DirectRun(servers, tmp_path, "play.yml") as run:
            assert f"word={version}" in run.wait().text
