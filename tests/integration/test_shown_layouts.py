"""What confined runs see of projects as people lay them out, asked of real sandboxes; others' inventories stay unseen.

The trees of well-known kinds of projects are small and written here; their shape is what counts.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flansible.config import load
from flansible.models import Confinement, Step
from flansible.worker import homes, inventory_names, mounts, sandbox, snapshots
from flansible.worker.ansible_config import notes_for
from tests.helpers.trees import DEV, PLAY, PROD, Tree, new_tree
from tests.helpers.waiting import require_program


@pytest.fixture
def tree() -> Iterator[Tree]:
    require_program("bwrap")
    with new_tree() as made:
        yield made


# Projects with their inventory in the top folder.


def test_an_inventory_in_the_top_folder_of_a_project_hides_nothing_else_of_it(tree: Tree) -> None:
    files = ("site.yml", "roles/web/tasks/main.yml", "files/users", "ansible.cfg", "README.md", "group_vars/all.yml")
    tree.write({f"playbooks/shop/{name}": PLAY if name == "site.yml" else "one\n" for name in files})
    tree.write({"playbooks/shop/hosts": DEV})
    tree.inventories = ["playbooks/shop/hosts"]
    assert tree.seen() == {f"playbooks/shop/{name}" for name in (*files, "hosts")}
    assert tree.notes() == ""


def test_inventories_beside_it_are_hidden_with_their_variables_and_the_history(tree: Tree) -> None:
    tree.write({"playbooks/shop/site.yml": PLAY, "playbooks/shop/hosts": DEV, "playbooks/shop/hosts-prod": PROD})
    tree.write({"playbooks/shop/staging/hosts": "stage1\n", "playbooks/shop/staging/group_vars/all": "a: 1\n"})
    tree.write({"playbooks/shop/group_vars/shop.yml": "a: 1\n", "playbooks/shop/group_vars/web.yml": "a: 1\n"})
    tree.write({"playbooks/shop/host_vars/shop1/main.yml": "a: 1\n", "playbooks/shop/.git/config": "x\n"})
    tree.inventories = ["playbooks/shop/hosts"]
    assert tree.seen() == {f"playbooks/shop/{name}" for name in ("site.yml", "hosts", "group_vars/web.yml")}
    assert "1 of the entries of shop/group_vars" in tree.notes() and "shop1" not in tree.notes()


def test_a_project_like_ceph_ansible_has_its_variables_and_plugins(tree: Tree) -> None:
    """Inventory, group_vars, plugins/ and library/ in the top folder, with samples beside what is used."""
    files = {
        "ansible.cfg": "[defaults]\nfilter_plugins = ./plugins/filter\n",
        "site.yml.sample": PLAY,
        "site.yml": PLAY,
        "infrastructure-playbooks/purge.yml": PLAY,
        "group_vars/all.yml.sample": "---\n#dummy:\n",
        "group_vars/osds.yml": "---\nosd_scenario: lvm\n",
        "plugins/filter/ranges.py": "def f(): pass\n",
        "library/pool.py": "#!/usr/bin/python\n",
        "profiles/rgw-keystone": "---\nceph_conf_overrides: {}\n",
        "requirements.txt": "ansible-core>=2.15\nnetaddr\n",
        "tox.ini": "[tox]\nenvlist = py3\n",
        "dummy-ansible-hosts": "localhost ansible_connection=local\n",
    }
    tree.write({f"playbooks/ceph/{name}": text for name, text in files.items()})
    tree.write({"playbooks/ceph/hosts": "[mons]\nmon1\n[osds]\nosd1\n", "playbooks/ceph/tests/functional/hosts": PROD})
    tree.inventories = ["playbooks/ceph/hosts"]
    assert tree.seen() == {f"playbooks/ceph/{name}" for name in (*files, "hosts")} - {
        "playbooks/ceph/dummy-ansible-hosts"
    }


def test_a_project_like_k3s_ansible_has_its_playbooks_beside_inventory_yml(tree: Tree) -> None:
    files = {
        "inventory.yml": "k3s_cluster:\n  children:\n    server:\n      hosts:\n        10.0.0.11:\n  vars: {a: 1}\n",
        "inventory-sample.yml": "k3s_cluster:\n  children:\n    server:\n      hosts:\n        10.0.0.99:\n",
        "playbooks/site.yml": PLAY,
        "roles/k3s_server/tasks/main.yml": "- ping:\n",
        "galaxy.yml": "namespace: k3s\nname: orchestration\n",
        "Vagrantfile": "NODES = 1\n",
        "collections/requirements.yml": "collections:\n  - name: ansible.posix\n",
    }
    tree.write({f"playbooks/k3s/{name}": text for name, text in files.items()})
    tree.inventories = ["playbooks/k3s/inventory.yml"]
    assert tree.seen() == {f"playbooks/k3s/{name}" for name in files} - {"playbooks/k3s/inventory-sample.yml"}
    assert tree.notes() == (
        "1 of what lies beside your inventory in k3s not shown, since it reads as inventories that are not yours"
    )


@pytest.mark.parametrize("granted", ["inventory/mycluster", "inventory/mycluster/inventory.ini"])
def test_a_project_like_kubespray_has_one_cluster_of_several(granted: str, tree: Tree) -> None:
    own = {
        "inventory.ini": "[kube_control_plane]\nnode1\n[etcd:children]\nkube_control_plane\n",
        "group_vars/all/all.yml": "bin_dir: /usr/local/bin\n",
        "group_vars/k8s_cluster/k8s-cluster.yml": "cluster_name: a\n",
        "group_vars/etcd.yml": "etcd_deployment_type: host\n",
        "host_vars/node1.yml": "ip: 10.0.0.1\n",
        "host_vars/node1.example.com/main.yml": "ip: 10.0.0.2\n",
        "artifacts/admin.conf": "apiVersion: v1\nclusters: []\n",
        "artifacts/kubectl.sh": "#!/bin/bash\nkubectl $@\n",
        "credentials/kubeadm_certificate_key.creds": "0123abcd\n",
        "README.md": "The cluster\n",
    }
    tree.write({f"playbooks/kubespray/inventory/mycluster/{name}": text for name, text in own.items()})
    other = "playbooks/kubespray/inventory/production"
    tree.write({f"{other}/inventory.ini": PROD, f"{other}/group_vars/all/all.yml": "a: 1\n"})
    shared = ("playbooks/kubespray/cluster.yml", "playbooks/kubespray/roles/etcd/defaults/main.yml")
    tree.write({name: PLAY for name in shared})
    tree.inventories = [f"playbooks/kubespray/{granted}"]
    seen = tree.seen()
    in_own = {f"playbooks/kubespray/inventory/mycluster/{name}" for name in own}
    assert seen >= {*shared, *(name for name in in_own if "_vars/" in name or name.endswith("inventory.ini"))}
    assert not any(other in name for name in seen)
    assert granted.endswith("ini") or seen >= in_own


def test_a_multistage_layout_has_the_variables_of_all_stages_by_their_links(tree: Tree) -> None:
    """One file of variables for all stages, and a link to it in each."""
    for stage, hosts in (("dev", DEV), ("prod", PROD)):
        tree.write({f"playbooks/environments/{stage}/hosts": hosts})
        tree.write({f"playbooks/environments/{stage}/group_vars/all/secrets": "a: 1\n"})
        tree.link(f"playbooks/environments/{stage}/group_vars/all/000_cross_env_vars", "../../../000_cross_env_vars")
    tree.write({"playbooks/environments/000_cross_env_vars": "shared: 1\n", "playbooks/site.yml": PLAY})
    tree.inventories = ["playbooks/environments/dev"]
    tree.others = ["playbooks/environments/prod"]
    dev = "playbooks/environments/dev"
    variables = {f"{dev}/group_vars/all/{name}" for name in ("secrets", "000_cross_env_vars")}
    assert tree.seen() == {
        "playbooks/site.yml",
        f"{dev}/hosts",
        "playbooks/environments/000_cross_env_vars",
        *variables,
    }
    assert tree.notes() == ""


# What a run is told of it.


RUNS: list[tuple[str, str, list[str], list[str]]] = [
    # program, directory, argv, the folders that the run is told of
    ("ansible-playbook", "playbooks/a", ["--", "site.yml"], ["a/group_vars", "a/plays/group_vars"]),
    ("ansible-playbook", "playbooks/b", ["--", "site.yml"], ["b/host_vars"]),
    ("ansible-playbook", "playbooks", ["--", "a/plays/more.yml"], ["a/group_vars", "a/plays/group_vars"]),
    (
        "ansible-playbook",
        "playbooks/a/plays",
        ["--", "../../b/site.yml"],
        ["a/group_vars", "a/plays/group_vars", "b/host_vars"],
    ),
    ("ansible-playbook", "playbooks/c", ["--", "site.yml"], []),
    ("ansible-playbook", "playbooks/c", ["--inventory={}/inv/linking", "--", "site.yml"], ["{}/inv/linking"]),
    ("ansible", "playbooks", ["--", "all"], []),
    ("ansible", "playbooks/a", ["--", "a/site.yml"], ["a/group_vars", "a/plays/group_vars"]),
    (
        "ansible",
        "playbooks",
        ["--playbook-dir={}/playbooks/b", "--args=--inventory=x", "--", "all"],
        ["b/host_vars"],
    ),
    ("ansible", "playbooks", ["--inventory={}/playbooks/a/dev", "--", "all"], ["a/group_vars"]),
]


def test_a_run_is_told_what_is_left_out_of_its_own_folders_alone(tree: Tree) -> None:
    for project, variables in (("a", "group_vars/shop"), ("a", "plays/group_vars/shop"), ("b", "host_vars/shop1")):
        tree.write({f"playbooks/{project}/{name}": DEV if name == "dev" else PLAY for name in ("dev", "site.yml")})
        tree.write({f"playbooks/{project}/{variables}.yml": "a: 1\n", f"playbooks/{project}/prod": PROD})
    tree.write({"playbooks/c/site.yml": PLAY, "inv/linking/hosts": DEV, "secret": "s\n"})
    tree.link("inv/linking/away", "../../secret")
    tree.inventories = ["playbooks/a/dev", "playbooks/b/dev", "inv/linking"]
    tree.others, tree.writable = ["playbooks/a/prod", "playbooks/b/prod"], ["playbooks/c/gone"]
    for program, directory, argv, names in RUNS:
        gone = [f"{tree.top}/playbooks/c/gone"] if directory == "playbooks/c" else []
        expected = sorted([*(name.format(tree.top) for name in names), *gone])
        assert sorted(tree.notes_of(program, directory, *argv)) == expected, (program, directory, argv)


def test_every_run_is_told_what_no_folder_explains(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_PRIVATE_KEY_FILE", str(tree.top / "key"))
    tree.write({"key": "k\n", "playbooks/a/site.yml": PLAY, "inv/dev/hosts": DEV, "shared/one": "1\n"})
    tree.inventories, tree.writable = ["inv/dev"], ["gone"]
    step = Step(program="ansible", argv=("--", "all"), cwd=str(tree.top / "playbooks"))
    first, second = notes_for(step, tree.sandbox())
    assert first.startswith("ANSIBLE_PRIVATE_KEY_FILE of the service") and second.startswith(f"{tree.top}/gone cannot")


# What belongs to an inventory.


SEEN = (
    "host_vars/w1.example.com/main.yml",
    "host_vars/w1.example.com.yml",
    "host_vars/w1.example.com.json",
    "group_vars/all.yml",
    "group_vars/ungrouped/x.yml",
    "group_vars/both.yml",
    "group_vars/os_Debian.yml",  # a group that a play makes by group_by
    "group_vars/web.yml.bak",
    "group_vars/both.yml.sample",
    "group_vars/all.yml.sample",
    "group_vars/both.prod.yml",
)
HIDDEN = (
    "group_vars/prod.yml",
    "group_vars/prod/vault.yml",
    "group_vars/prod.yml.bak",
    "group_vars/prod.yml~",
    "host_vars/p1.example.com.yml",
    "host_vars/p1.example.com/main.yml",
)


def test_variables_are_hidden_when_their_name_is_of_anothers_inventory_alone(tree: Tree) -> None:
    tree.write({"all/dev": "# formerly prod\nw1.example.com\n[web]\nw1.example.com\n[both]\n"})
    tree.write({"all/prod-hosts": "[prod]\np1.example.com\n[both]\np1.example.com\n"})
    tree.write({f"all/{entry}": "a: 1\n" for entry in (*SEEN, "group_vars/prod")})
    tree.inventories, tree.others = ["all/dev"], ["all/prod-hosts"]
    shown = {"all/dev", *(f"all/{entry}" for entry in SEEN)}
    assert tree.seen() == shown and "1 of the entries" in tree.notes()
    (tree.top / "all/group_vars/prod").unlink()
    assert tree.seen() == shown and "not shown" not in tree.notes()
    tree.write({f"all/{entry}": "a: 1\n" for entry in HIDDEN})
    assert tree.seen() == shown
    notes = tree.notes()
    assert f"4 of the entries of {tree.top}/all/group_vars" in notes
    assert f"2 of the entries of {tree.top}/all/host_vars" in notes


def test_a_name_in_a_comment_of_the_own_inventory_opens_nothing(tree: Tree) -> None:
    tree.write({"playbooks/a/dev": "w1\n# prod is elsewhere\n", "playbooks/a/prod": PROD.replace("shop", "prod")})
    tree.write({"playbooks/a/group_vars/prod.yml": "secret: 1\n", "playbooks/a/site.yml": PLAY})
    tree.inventories, tree.others = ["playbooks/a/dev"], ["playbooks/a/prod"]
    assert tree.seen() == {"playbooks/a/dev", "playbooks/a/site.yml"}


def test_what_is_no_inventory_beside_one_hides_no_variables(tree: Tree) -> None:
    beside = ("README.md", "artifacts/build.log", "notes.txt", "VERSION", "docs/index.md")
    tree.write({"inventories/dev": DEV, **{f"inventories/{name}": "1.2\n" for name in beside}})
    tree.write({"inventories/group_vars/os.yml": "a: 1\n"})
    tree.inventories = ["inventories/dev"]
    assert tree.seen() == {"inventories/dev", "inventories/group_vars/os.yml"}


def test_variables_that_are_links_are_seen_and_those_that_lead_away_are_named(tree: Tree) -> None:
    tree.write({"playbooks/a/hosts": DEV, "playbooks/common/vars/web.yml": "a: 1\n", "secret": "s\n"})
    tree.link("playbooks/a/group_vars", "../common/vars")
    tree.link("playbooks/a/host_vars", "../../elsewhere")
    tree.write({"elsewhere/web1.yml": "a: 1\n"})
    tree.inventories = ["playbooks/a/hosts"]
    assert tree.seen() == {"playbooks/a/hosts", "playbooks/a/group_vars/web.yml", "playbooks/common/vars/web.yml"}
    assert "lead to what" in tree.notes() and "elsewhere" not in tree.notes()


def test_a_link_to_anothers_variables_or_a_private_file_shows_neither(tree: Tree) -> None:
    tree.write({"inventories/dev/hosts": DEV, "inventories/prod/hosts": PROD, "inventories/prod/key": "k\n"})
    tree.write({"inventories/stage/hosts": "stage1\n", "inventories/stage/key": "k\n"})
    for name, target in (("a", "../prod/key"), ("b", "../../rbac.json"), ("c", ".."), ("d", "../stage/key")):
        tree.link(f"inventories/dev/{name}", target)
    tree.inventories, tree.others = ["inventories/dev"], ["inventories/prod"]
    assert tree.seen() == {"inventories/dev/hosts"}


SCRIPT = """#!/usr/bin/python3
import json, os, sys
found = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "machines.json")))
print(json.dumps({**{name: {"hosts": hosts} for name, hosts in found.items()}, "_meta": {"hostvars": {}}}))
"""


@pytest.mark.by_day(1)
@pytest.mark.parametrize("folder", ["playbooks/a", "playbooks/inventories", "inventories"])
def test_a_script_reads_a_file_beside_itself_and_its_groups_have_their_variables(folder: str, tree: Tree) -> None:
    tree.write({f"{folder}/dev.py": SCRIPT, f"{folder}/machines.json": '{"web": ["web1"], "both": ["web1"]}'})
    tree.write({f"{folder}/prod": "[both]\nshop1\n", f"{folder}/id_rsa": "-----BEGIN KEY-----\nabc=\n"})
    tree.write({f"{folder}/group_vars/{name}.yml": "a: 1\n" for name in ("web", "both")})
    tree.write({f"{folder}/host_vars/{name}.yml": "a: 1\n" for name in ("web1", "shop1")})
    tree.inventories, tree.others = [f"{folder}/dev.py"], [f"{folder}/prod"]
    seen = {path.removeprefix(f"{folder}/") for path in tree.seen()} - {"id_rsa"}
    assert seen == {"dev.py", "machines.json", "group_vars/web.yml", "group_vars/both.yml", "host_vars/web1.yml"}


def test_what_belongs_to_anothers_script_by_name_is_hidden_with_it(tree: Tree) -> None:
    tree.write({"playbooks/a/dev.ini": DEV, "playbooks/a/prod.py": SCRIPT, "playbooks/a/prod.ini": "[x]\nkey = k\n"})
    tree.write({"playbooks/a/prod.yml": PLAY, "playbooks/a/vault-prod.txt": "s\n", "playbooks/a/prod_keys/key": "k\n"})
    tree.inventories = ["playbooks/a/dev.ini"]
    assert tree.seen() == {"playbooks/a/dev.ini", "playbooks/a/prod.yml"}


# The hidden run that reads hosts and groups.


def hostile(tree: Tree, script: str) -> set[str]:
    tree.write({"all/dev": DEV, "all/prod": f"#!/bin/sh\n# --list\n{script}\n", "all/group_vars/shop.yml": "a: 1\n"})
    tree.write({"all/group_vars/web.yml": "a: 1\n"})
    tree.inventories, tree.others = ["all/dev"], ["all/prod"]
    return tree.seen()


@pytest.mark.by_day(2)
@pytest.mark.parametrize(
    "script",
    ["exit 1", "echo nonsense", "setsid sleep 600 & sleep 600", "yes '{'", "kill -9 $PPID"],
)
def test_where_anothers_inventory_cannot_be_read_only_variables_of_the_own_are_seen(
    script: str, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory_names, "_SECONDS", 8.0)
    began = time.monotonic()
    assert hostile(tree, script) == {"all/dev", "all/group_vars/web.yml"}
    assert time.monotonic() - began < 60


def test_an_inventory_program_sees_no_network_no_home_and_nothing_private_while_it_is_read(tree: Tree) -> None:
    home = homes.home_of("dev", tree.top / ".flansible")
    tree.write({os.path.relpath(home / "mine", tree.top): "x\n", "all/group_vars/os.yml": "a: 1\n"})
    probes = ("! test -e ~/mine", "! cat ../rbac.json", "! touch x", "! ls /sys", "[ $(grep -c : /proc/net/dev) = 1 ]")
    hosts = '{"all": {"hosts": ["shop"]}}'
    seen = hostile(tree, f"cd $(dirname $0); if {' && '.join(probes)}; then echo '{hosts}'; fi")
    # If one of these did not hold, the inventory's hosts were unknown, and the variables of `os` hidden.
    assert seen == {"all/dev", "all/group_vars/web.yml", "all/group_vars/os.yml"}


def test_a_users_home_cannot_make_names_of_others_the_users_own(tree: Tree) -> None:
    tree.write({"all/dev": DEV, "all/prod": PROD, "all/group_vars/shop.yml": "a: 1\n"})
    tree.inventories, tree.others = ["all/dev"], ["all/prod"]
    plugin = "from ansible.plugins.inventory import BaseInventoryPlugin\nclass InventoryModule(BaseInventoryPlugin):\n"
    plugin += "    NAME = 'ini'\n    def verify_file(self, path):\n        return True\n"
    plugin += "    def parse(self, inventory, loader, path, cache=True):\n        inventory.add_group('shop')\n"
    home = homes.home_of("dev", tree.top / ".flansible")
    tree.sandbox()
    (home / ".ansible.cfg").rmdir()
    tree.write({os.path.relpath(home / ".ansible/plugins/inventory/ini.py", tree.top): plugin})
    tree.write({os.path.relpath(home / ".ansible.cfg", tree.top): "[inventory]\nenable_plugins = ini\n"})
    tree.write({"all/dev": DEV + "\n"})
    assert tree.seen() == {"all/dev"}


def test_what_a_user_can_write_cannot_make_names_of_others_the_users_own(tree: Tree) -> None:
    script = "#!/bin/sh\n# --list\ncat $(dirname $0)/../out/names || echo '{}'\n"
    tree.write({"all/dev": script, "all/prod": PROD, "all/group_vars/shop.yml": "a: 1\n"})
    tree.write({"out/names": '{"shop": {"hosts": ["shop1"]}}'})
    tree.inventories, tree.others, tree.writable = ["all/dev"], ["all/prod"], ["out"]
    tree.sandbox_paths = ["out"]
    assert tree.seen() == {"all/dev", "out/names"}


def test_inventories_are_read_again_when_they_change_and_only_then(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.write({"all/dev": DEV, "all/prod": PROD, "all/group_vars/shop.yml": "a: 1\n"})
    tree.inventories, tree.others = ["all/dev"], ["all/prod"]
    assert tree.seen() == {"all/dev"}
    runs: list[object] = []
    output_of = inventory_names._output_of
    monkeypatch.setattr(inventory_names, "_output_of", lambda *args: runs.append(args) or output_of(*args))
    assert tree.seen() == {"all/dev"} and runs == []
    tree.write({"all/dev": DEV + "[shop]\nweb1\n"})
    assert tree.seen() == {"all/dev", "all/group_vars/shop.yml"}


# Every tree that is shown.


@pytest.mark.parametrize("around", ["sandbox_paths", "paths"])
def test_anothers_inventory_is_unseen_in_every_tree_that_is_shown(around: str, tree: Tree) -> None:
    tree.write({"tools/bin/run": "x\n", "tools/prod/hosts": PROD, "tools/prod/mine/key": "k\n", "tools/.git/x": "x\n"})
    tree.others = ["tools/prod"]
    setattr(tree, around, ["tools"])
    tree.inventories = ["tools/prod/mine"]
    assert tree.seen() == {"tools/bin/run", "tools/prod/mine/key"}


@pytest.mark.by_day(2)
@pytest.mark.parametrize("around", ["playbooks/stages", "stages"])
@pytest.mark.parametrize("granted", ["dev/hosts", "dev"])
def test_variables_beside_anothers_inventory_file_alone_are_unseen_whatever_their_names(
    around: str, granted: str, tree: Tree
) -> None:
    for stage in ("dev", "prod"):
        tree.write({f"{around}/{stage}/hosts": f"[web]\n{stage}1\n"})
        tree.write({f"{around}/{stage}/{name}.yml": "a: 1\n" for name in ("group_vars/all", "group_vars/web")})
        tree.write({f"{around}/{stage}/host_vars/{name}.yml": "a: 1\n" for name in (f"{stage}1", "left")})
    tree.link(f"{around}/dev/group_vars/linked.yml", "../../prod/group_vars/web.yml")
    tree.sandbox_paths, tree.inventories = ["stages"], [f"{around}/{granted}"]
    tree.others = [f"{around}/prod/hosts"]
    variables = {f"{around}/dev/{name}.yml" for name in ("group_vars/all", "group_vars/web", "host_vars/dev1")}
    assert tree.seen() == {f"{around}/dev/hosts", f"{around}/dev/host_vars/left.yml", *variables}


@pytest.mark.by_day(2)
@pytest.mark.parametrize("beside", ["ansible.cfg", "roles/web/tasks/main.yml"])
@pytest.mark.parametrize(("own", "others"), [("dev/hosts", ["prod/hosts"]), ("hosts", [])])
def test_an_ansible_cfg_or_roles_beside_anothers_inventory_file_open_no_variables(
    beside: str, own: str, others: list[str], tree: Tree
) -> None:
    """Whether rbac.json names the other inventory, or it merely lies below the user's."""
    stages = "playbooks/stages"
    tree.write(
        {f"{stages}/{own}": "[web]\nown1\n", f"{stages}/prod/hosts": "[web]\nprod1\n", f"{stages}/site.yml": PLAY}
    )
    tree.write({f"{stages}/prod/{name}.yml": "a: 1\n" for name in ("group_vars/all", "group_vars/web", "host_vars/x")})
    tree.write({f"{stages}/prod/{beside}": "[defaults]\n"})
    tree.inventories, tree.others = [f"{stages}/{own}"], [f"{stages}/{name}" for name in others]
    assert tree.seen() == {f"{stages}/{name}" for name in (own, "site.yml", f"prod/{beside}")}


def test_a_link_to_variables_in_the_folder_of_anothers_inventory_file_shows_them_no_more(tree: Tree) -> None:
    tree.write(
        {"playbooks/prod/hosts": "[web]\nprod1\n", "playbooks/prod/vars/all.yml": "a: 1\n", "playbooks/dev": DEV}
    )
    tree.write({"playbooks/common/all.yml": "a: 1\n"})
    tree.link("playbooks/prod/group_vars", "vars")
    tree.link("playbooks/prod/host_vars", "../common")
    tree.inventories, tree.others = ["playbooks/dev"], ["playbooks/prod/hosts"]
    assert tree.seen() == {"playbooks/dev", "playbooks/common/all.yml"}


@pytest.mark.by_day(4)
@pytest.mark.parametrize("history", ["shop/.git", "shop.git", "repositories/shop.git", "../elsewhere/shop"])
@pytest.mark.parametrize("kind", ["worktree", "submodule", "link"])
def test_the_history_of_a_folder_with_something_hidden_is_hidden_wherever_git_keeps_it(
    history: str, kind: str, tree: Tree
) -> None:
    place, files = f"playbooks/{history}", {"HEAD": "ref: refs/heads/main\n", "objects/aa/bb": "prod", "config": ""}
    tree.write({os.path.normpath(f"{place}/{name}"): text for name, text in files.items()})
    tree.write({"playbooks/work/dev": DEV, "playbooks/work/prod": PROD, "playbooks/other/site.yml": PLAY})
    if kind == "worktree":
        tree.write({os.path.normpath(f"{place}/worktrees/work/commondir"): "../..\n"})
        tree.write({"playbooks/work/.git": f"gitdir: ../{history}/worktrees/work\n"})
    elif kind == "submodule":
        tree.write({"playbooks/work/.git": f"gitdir: ../{history}\n"})
    else:
        tree.link("playbooks/work/.git", f"../{history}")
    tree.sandbox_paths, tree.inventories, tree.others = ["elsewhere"], ["playbooks/work/dev"], ["playbooks/work/prod"]
    assert tree.seen() == {"playbooks/work/dev", "playbooks/other/site.yml"}


def test_a_repository_without_a_checkout_beside_something_hidden_is_hidden(tree: Tree) -> None:
    for place in ("playbooks/shop.git", "playbooks/other/tool.git"):
        tree.write({f"{place}/{name}": "x\n" for name in ("HEAD", "objects/aa/bb", "config")})
    tree.write({"playbooks/shop.bundle": "# v2 git bundle\n", "playbooks/dev": DEV, "playbooks/prod": PROD})
    tree.inventories, tree.others = ["playbooks/dev"], ["playbooks/prod"]
    assert tree.seen() == {
        "playbooks/dev",
        *(f"playbooks/other/tool.git/{n}" for n in ("HEAD", "objects/aa/bb", "config")),
    }


def test_variables_beside_playbooks_in_another_folder_of_the_project_are_judged_too(tree: Tree) -> None:
    tree.write({"playbooks/shop/inv/dev": DEV, "playbooks/shop/inv/prod": PROD, "playbooks/shop/plays/site.yml": PLAY})
    tree.write({f"playbooks/shop/plays/group_vars/{name}.yml": "a: 1\n" for name in ("all", "web", "os", "shop")})
    tree.write({f"playbooks/shop/plays/host_vars/{name}.yml": "a: 1\n" for name in ("web1", "shop1")})
    tree.write({"playbooks/shop/inv/stage/hosts": PROD, "playbooks/shop/inv/stage/group_vars/shop.yml": "a: 1\n"})
    tree.inventories = ["playbooks/shop/inv/dev"]
    names = ("group_vars/all.yml", "group_vars/web.yml", "group_vars/os.yml", "host_vars/web1.yml", "site.yml")
    assert tree.seen() == {"playbooks/shop/inv/dev", *(f"playbooks/shop/plays/{name}" for name in names)}
    assert "1 of the entries of shop/plays/group_vars" in tree.notes() and "inv/stage" not in tree.notes()


def test_variables_beside_anothers_inventory_file_and_a_playbook_are_seen_by_their_names(tree: Tree) -> None:
    tree.write({"playbooks/shop/site.yml": PLAY, "playbooks/shop/prod.ini": "[web]\n[shop]\nshop1\n", "dev": DEV})
    tree.write({f"playbooks/shop/group_vars/{name}.yml": "a: 1\n" for name in ("all", "web", "shop")})
    tree.inventories, tree.others = ["dev"], ["playbooks/shop/prod.ini"]
    shown = {f"playbooks/shop/group_vars/{name}.yml" for name in ("all", "web")}
    assert tree.seen() == {"playbooks/shop/site.yml", "dev", *shown}


def test_anothers_inventory_among_the_systems_files_is_unseen(tree: Tree) -> None:
    programs = Path(shutil.which("bwrap") or "").resolve().parent
    tree.others = [str(programs / "bwrap")]
    assert str(programs / "bwrap") not in tree.run("find", str(programs), "-name", "*wr*p")
    assert str(programs / "find") in tree.run("find", str(programs), "-name", "fin*")


def test_anothers_inventory_among_the_shared_roles_is_unseen(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.write({"home/.ansible/roles/web/inventory": PROD, "home/.ansible/roles/web/tasks/main.yml": "- ping:\n"})
    tree.others = ["home/.ansible/roles/web/inventory"]
    monkeypatch.setenv("HOME", str(tree.top / "home"))
    assert tree.run("find", "-L", homes.HOME, "-name", "inventory", "-o", "-name", "main.yml") == (
        f"{homes.HOME}/.ansible/roles/web/tasks/main.yml\n"
    )


# Many pieces.


def many(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Projects with more pieces than are mounted, where only few are."""
    monkeypatch.setattr(mounts, "MOST_MOUNTS", 5)
    for number in range(12):
        tree.write({f"playbooks/p{number}/site.yml": PLAY, f"playbooks/p{number}/inventories/x": PROD})


def test_two_hundred_projects_with_an_inventory_folder_each_are_seen_within_seconds(tree: Tree) -> None:
    for number in range(200):
        project = f"playbooks/p{number}"
        tree.write({f"{project}/{name}": PLAY for name in ("site.yml", "roles/a/tasks/main.yml", "templates/x.j2")})
        tree.write({f"{project}/inventories/dev/hosts": DEV, f"{project}/inventories/prod/hosts": PROD})
        tree.write({f"{project}/files/tool": "#!/bin/sh\n"})
        tree.link(f"{project}/latest.yml", "site.yml")
        tree.inventories.append(f"{project}/inventories/dev")
        tree.others.append(f"{project}/inventories/prod")
    began = time.monotonic()
    seen = tree.seen()
    assert time.monotonic() - began < 30
    assert len(seen) == 200 * 6 and not any("prod" in name for name in seen)
    before = tree.sandbox()
    assert len(before.arguments) < 3000 and tree.sandbox() == before
    tree.write({"playbooks/p7/site.yml": PLAY + "\n"})
    assert tree.sandbox() != before
    read = f"cd {tree.top}/playbooks/p7; cat site.yml; stat -c %a files/tool; readlink latest.yml"
    assert tree.run("sh", "-c", read) == PLAY + "\n755\nsite.yml\n"


@pytest.mark.parametrize(
    ("granted", "seen"), [("dev", "dev"), ("a/dev/hosts", "a/dev/hosts"), ("a/dev", "a/dev/hosts")]
)
def test_an_inventory_in_a_hidden_folder_is_there_among_copies(
    granted: str, seen: str, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(tree, monkeypatch)
    # The large one is mounted, the other one copied.
    own = "playbooks/p1/inventories"
    tree.write({f"{own}/dev": DEV, f"{own}/a/dev/hosts": DEV + "# large\n" * 200_000})
    tree.inventories = [f"{own}/{granted}"]
    assert tree.sandbox().snapshot is not None
    assert {name for name in tree.seen() if name.startswith(own)} == {f"{own}/{seen}"}


def test_a_writable_folder_is_itself_among_copies(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    many(tree, monkeypatch)
    tree.write({"playbooks/p1/out/inventories/x": "mine\n", "playbooks/p1/out/hosts": PROD})
    tree.inventories, tree.writable = ["playbooks/p1/site.yml"], ["playbooks/p1/out"]
    assert tree.sandbox().snapshot is not None
    out = tree.top / "playbooks/p1/out"
    assert tree.run("sh", "-c", f"cd {out}; echo new > new && cat new inventories/x") == "new\nmine\n"
    assert (out / "new").read_text() == "new\n"


def test_a_writable_folder_that_has_become_a_link_or_is_gone_is_not_writable(tree: Tree) -> None:
    tree.write({"secret/x": "s\n", "playbooks/site.yml": PLAY})
    tree.writable = ["playbooks/gone"]
    assert "playbooks/gone cannot be written by this run" in tree.notes()
    confinement = Confinement(readable=(), writable=(str(tree.top / "playbooks/link"),))
    tree.link("playbooks/link", "../secret")
    one = sandbox.build("dev", confinement, None, load(str(tree.top / "config.ini"), {}))
    assert not any("secret" in word for word in one.arguments)


def test_copies_that_no_sandbox_shows_are_removed_and_others_are_not(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(tree, monkeypatch)
    shown = tree.sandbox().snapshot
    assert shown is not None
    for number in range(2):
        tree.write({"playbooks/p1/site.yml": PLAY + "#" * (number + 1)})
        held = snapshots.hold(shown)
        os.utime(shown + ".lock", (1, 1))
        assert tree.sandbox().snapshot != shown and os.path.isdir(shown)
        assert held is not None
        os.close(held)
    os.utime(shown + ".lock", (1, 1))
    tree.write({"playbooks/p1/site.yml": PLAY + "# last\n"})
    tree.sandbox()
    assert not os.path.exists(shown)
