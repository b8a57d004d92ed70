"""One rule for what a confined user is shown: lists and sandboxes agree on it, over random trees."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings

from flansible.authorization.shown_paths import is_below
from tests.unit.layouts import Layout, built, layouts

tried = settings(
    max_examples=int(os.environ.get("FUZZ", "75")),
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.generates
@pytest.mark.timeout(1800)
@tried
@given(layouts())
def test_a_sandbox_mounts_exactly_what_the_rule_shows(layout: Layout) -> None:
    with built(layout) as made:
        assert made.mounted() == made.ruled()


@pytest.mark.generates
@pytest.mark.timeout(1800)
@tried
@given(layouts())
def test_lists_have_what_is_mounted_but_for_variables_beside_inventories_and_sandbox_paths(layout: Layout) -> None:
    with built(layout) as made:
        listed, mounted = made.listed(), made.mounted()
        runs_alone = (*made.shown.variables, *made.shown.opened)
    assert listed <= mounted
    for path in mounted - listed:
        assert any(is_below(str(made.top / path), one) for one in runs_alone)


# Where lists and sandboxes once disagreed: what either hid is hidden by both. Path, whether lists have it, whether it
# is mounted.
DISAGREED = {
    "a file of the service among the playbooks: lists had it": (
        Layout(files=("playbooks/rbac.json", "playbooks/site.yml"), private="playbooks/rbac.json"),
        ("playbooks/rbac.json", False, False),
    ),
    "a file of the service in an inventory of the user: lists had it": (
        Layout(files=("dev/rbac.json", "dev/hosts"), readable=("dev",), private="dev/rbac.json"),
        ("dev/rbac.json", False, False),
    ),
    "another inventory, with sandbox_paths around playbook_root: mounted": (
        Layout(files=("playbooks/inventories/prod",), root="playbooks", sandbox_paths=(".",)),
        ("playbooks/inventories/prod", False, False),
    ),
    "the default inventory, with sandbox_paths around it: mounted": (
        Layout(files=("playbooks/a/hosts",), default="playbooks/a/hosts", sandbox_paths=("playbooks/a",)),
        ("playbooks/a/hosts", False, False),
    ),
    "what a link among the variables of an inventory leads to: mounted": (
        Layout(
            files=("all/dev", "all/prod", "secret", "all/host_vars/web2"),
            links=(("all/host_vars/web1.yml", "../../secret"),),
            readable=("all/dev",),
        ),
        ("secret", False, False),
    ),
}
# What runs need and lists never had: mounted, and in no list, as before.
FOR_RUNS_ALONE = {
    "group_vars beside an inventory file of the user": (
        Layout(files=("playbooks/stages/dev", "playbooks/stages/group_vars/all"), readable=("playbooks/stages/dev",)),
        ("playbooks/stages/group_vars/all", False, True),
    ),
    "sandbox_paths in what is hidden": (
        Layout(files=("playbooks/inventories/tools/list",), sandbox_paths=("playbooks/inventories/tools",)),
        ("playbooks/inventories/tools/list", False, True),
    ),
    "sandbox_paths outside playbook_root": (
        Layout(files=("shared/script",), sandbox_paths=("shared",)),
        ("shared/script", False, True),
    ),
}


@pytest.mark.parametrize("case", [*DISAGREED, *FOR_RUNS_ALONE])
def test_where_lists_and_sandboxes_disagreed_what_either_hid_is_hidden(case: str) -> None:
    layout, (path, listed, mounted) = {**DISAGREED, **FOR_RUNS_ALONE}[case]
    with built(layout) as made:
        assert path in made.named(made.paths())
        assert (path in made.listed(), path in made.mounted()) == (listed, mounted)


@pytest.mark.parametrize("gone", ["playbooks/gone/hosts", "playbooks/site.yml/hosts"])
def test_an_inventory_that_is_gone_with_its_folder_takes_nothing_else_away(gone: str) -> None:
    with built(Layout(files=("playbooks/site.yml",), readable=(gone,), others=("playbooks/site.yml/prod",))) as made:
        assert made.mounted() == made.listed() == {"playbooks/site.yml"}
