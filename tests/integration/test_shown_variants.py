"""Others' inventories in every form, place and neighbourhood: nothing of theirs is in a sandbox, all else is.

Each case is a way in which people keep two inventories and their variables. What is another's has one mark, what is
everybody's has another one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import pytest

from tests.helpers.trees import PLAY, new_tree
from tests.helpers.waiting import require_program

THEIRS = "# theirs\n"
SHARED = "# shared\n"
NOBODYS = "# nobody's\n"
# Another's inventory: its host is shop1, its groups are shop and web, which the user's has too.
FORMS = {
    "ini": "[shop]\nshop1\n[web]\nshop1\n",
    "ini with a byte order mark": "\ufeff[shop]\nshop1\n[web]\nshop1\n",
    "ini and its variables apart": "[shop]\nshop1\n[web]\n",
    "yaml": "shop:\n  hosts: {shop1: }\nweb:\n  hosts: {shop1: }\n",
    "toml": "[shop.hosts]\nshop1 = {}\n[web.hosts]\nshop1 = {}\n",
    "program": '#!/bin/sh\n# --list\necho \'{"shop": ["shop1"], "_meta": {"hostvars": {}}}\'\n',
}
ENDINGS = {"yaml": ".yml", "toml": ".toml"}
# Where the inventories of user and other lie: dev, prod.
PLACES = {
    "in one folder": ("playbooks/shop/inv/dev", "playbooks/shop/inv/prod"),
    "in folders of their own": ("playbooks/shop/inv/dev/hosts", "playbooks/shop/inv/prod/hosts"),
    "in the top folder": ("playbooks/shop/dev", "playbooks/shop/prod"),
    "in playbook_root": ("playbooks/dev", "playbooks/prod"),
    "outside, in one folder": ("inv/dev", "inv/prod"),
    "outside, in folders of their own": ("inv/dev/hosts", "inv/prod/hosts"),
    "one in the project, one outside": ("playbooks/shop/dev", "inv/prod"),
}
# Folders with variables of both.
VARIABLES = (
    "playbooks/shop",
    "playbooks/shop/plays",
    "playbooks/shop/roles/web",
    "playbooks/shop/roles/web/tests",
    "playbooks/shop/molecule/default",
    "playbooks/shop/collections/ansible_collections/own/shop/playbooks",
)
# Ansible cannot read them, so their names are unknown.
UNREADABLE = ("ini with a byte order mark", "ini and its variables apart")
HISTORIES = (".git", ".hg", ".svn", ".bzr", ".jj", ".sl", ".pijul", "_darcs", "CVS")


@dataclass(frozen=True)
class Variant:
    form: str
    place: str
    is_known: bool  # whether rbac.json has the other inventory; if not, it is one only beside the user's

    def __str__(self) -> str:
        return f"{self.form}, {self.place}, {'known' if self.is_known else 'unknown'}"


def variants() -> Iterator[Variant]:
    for form, place, is_known in product(FORMS, PLACES, (True, False)):
        dev, prod = (path.rpartition("/")[0] for path in PLACES[place])
        # Nobody could know that a file elsewhere is an inventory. What a far one does not tell by itself hides nothing.
        is_silent = form == "program" or form == UNREADABLE[0]
        if (is_known or dev == prod) and not (is_silent and not prod.startswith("playbooks")):
            yield Variant(form, place, is_known)


ALL = random.Random(16).sample(list(variants()), len(list(variants())))
SOME = len(ALL) // 8  # by day


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(one, id=str(one), marks=[pytest.mark.nightly] if index >= SOME else [])
        for index, one in enumerate(ALL)
    ],
)
def test_nothing_of_anothers_inventory_is_seen_and_all_that_is_everybodys_is(variant: Variant) -> None:
    require_program("bwrap")
    dev, prod = PLACES[variant.place]
    prod += ENDINGS.get(variant.form, "")
    history = HISTORIES[ALL.index(variant) % len(HISTORIES)]
    with new_tree() as tree:
        tree.write({dev: "W1\n[web]\nW1\n", "playbooks/shop/site.yml": PLAY})
        tree.write({prod: FORMS[variant.form] + THEIRS})
        if variant.form == "ini and its variables apart":
            tree.write({f"{prod.rpartition('/')[0]}/prod-vars": "[shop:vars]\npassword=x\n" + THEIRS})
        for folder in VARIABLES:
            tree.write(
                {f"{folder}/{name}.yml": SHARED for name in ("group_vars/all", "group_vars/web", "host_vars/W1")}
            )
            # Nobody's: Ansible compares names with their case. Where names are unknown they could be another's.
            mark = NOBODYS if variant.form in UNREADABLE else SHARED
            tree.write(
                {f"{folder}/{name}.yml": mark for name in ("group_vars/os_Debian", "host_vars/w1", "host_vars/Shop1")}
            )
            tree.write({f"{folder}/group_vars/shop.yml": THEIRS, f"{folder}/host_vars/shop1/main.yml": THEIRS})
        project = "playbooks/shop" if prod.startswith("playbooks/") else "playbooks"
        tree.write({f"{project}/{history}/objects": THEIRS})
        tree.inventories, tree.others = [dev], [prod] if variant.is_known else []
        seen = tree.seen()
        shared = {name for name in tree.files(SHARED) if name.startswith("playbooks/")}
        assert seen & tree.files(THEIRS) == set()
        assert shared - seen == set()
        assert {dev, "playbooks/shop/site.yml"} <= seen
