"""Which files are inventories, by their content: what Ansible would read as one, and what people keep beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flansible.authorization import inventory_files

INVENTORIES = {
    "hosts": "[web]\nweb[01:20].example.com ansible_user=x # one\n\n[all:vars]\na=1\n[x:children]\nweb\n",
    "one": "localhost ansible_connection=local\n",
    "ipv6": "[web]\n[2001:db8::1]:22\n",
    "prod.yml": "all:\n  hosts:\n    a:\n  children:\n    web: {hosts: {b: {}}}\n",
    "groups.yaml": "web:\n  hosts: {a: }\n",
    "only_vars": "all:\n  vars:\n    password: x\n",
    "inv.json": '{"web": {"hosts": {"a": {}}}}',
    "inv.toml": "[web.hosts]\na = {}\n",
    "cloud.yml": "plugin: amazon.aws.aws_ec2\nregions: [x]\n",
    "quoted.yml": "'all':\n  \"children\":\n    web:\n",
    "ec2.py": "#!/usr/bin/python\nprint(json.dumps({'_meta': {'hostvars': {}}}))\n",
    "hosts.bak": "[web]\na\n",
    "printed.json": '{"web": {"hosts": ["a"]}, "_meta": {"hostvars": {"a": {"password": "x"}}}}',
    "vars_alone": "[shop:vars]\npassword=x\n",
    "children_alone": "[shop:children]\nweb\n",
    "large": "[web]\n" + "web1.example.com\n" * 100_000,
}
NAMES = {"prod": "web1\nweb2.example.com\n", "list": "10.0.0.1\n"}
NAMES["rejected"] = "[web]\nweb1 port 22\nweb2\n[web:vars]\na=1\n"
NAMES["rejected_too"] = "web1 ansible_host=10.0.0.1 ansible_password=x\nweb2 = 10.0.0.2\nweb3\n"
NAMES["static.sh"] = '#!/bin/sh\necho \'{"web": {"hosts": []}}\'\n'
NAMES["push.sh"] = "#!/bin/sh\ngit branch --list\n"
OTHERS = {
    "README.md": "# Hosts\n\nThe [web] hosts are:\n\n- web1\n",
    "site.yml": "---\n# all\n- name: x\n  hosts: all\n",
    "vars.yml": "hosts: [a, b]\nchildren: 3\n",
    "group_vars": "web:\n  port: 80\n  hosts: ['a']\n",
    "compose.yml": "services:\n  web:\n    image: x\n",
    "galaxy.yml": "namespace: a\nname: b\n",
    "requirements.yml": "roles:\n  - name: x\n",
    "data.json": '{"web": {"hosts": ["a", "b"]}, "_meta": {}}',
    "tox.ini": "[tox]\nenvlist = py3\n[testenv]\ndeps =\n  pytest\n",
    "setup.cfg": "[metadata]\nname=x\n",
    "VERSION": "1.2.3\n",
    "version": "v2.0.0-rc.1\n",
    "Makefile": "all:\n\tansible-playbook site.yml\n",
    "ignored": "*.retry\n.vault\n",
    "key": "-----BEGIN PRIVATE KEY-----\nabc+/=\n",
    "vault.yml": "$ANSIBLE_VAULT;1.1;AES256\n6162\n",
    "deploy.sh": "#!/bin/sh\nansible-playbook --list-tags -i hosts site.yml\n",
    "broken.yml": "all:\n  hosts: [\n",
    "empty": "",
    "comment": "# web1\n",
    "headings": "[web]\n[data]\n",
    "binary": "a\0b",
    "prose": "[web]\nThe hosts of the web are\nweb1 and web2 and\nthese have\n[web:vars]\nport=80\n",
    "units": "[Unit]\nAfter=network.target\n[Service]\nType=simple\n",
}


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        *((name, text, "inventory") for name, text in INVENTORIES.items()),
        *((name, text, "names") for name, text in NAMES.items()),
        *((name, text, "") for name, text in OTHERS.items() if name != "site.yml"),
        ("site.yml", OTHERS["site.yml"], "playbook"),
        ("long", "[web]\nw1 ansible_user='" + "y " * 20_000 + "'\n", "inventory"),
    ],
)
def test_a_file_is_what_it_holds(name: str, text: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    path.chmod(0o755 if text.startswith("#!") else 0o644)
    assert inventory_files.kind_of(str(path)) == kind


@pytest.mark.parametrize(
    "text", [b"# Gr\xfc\xdfe\n[web]\nweb1\n", b"#!/bin/python\n# \xfc\nprint('--list', '_meta')\n"]
)
def test_an_inventory_is_one_in_whatever_encoding_its_comments_are(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "prod"
    path.write_bytes(text)
    assert inventory_files.kind_of(str(path)) == "inventory"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["hosts", "prod.yml", "vars_alone"])
def test_an_inventory_is_one_with_a_mark_of_its_byte_order(name: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(INVENTORIES[name], encoding=encoding)
    assert inventory_files.kind_of(str(path)) == "inventory"


@pytest.mark.parametrize(
    ("text", "mode", "kind"),
    [
        (b'\0{"_meta": {"hostvars": {}}}', 0o755, "inventory"),
        (b"\0usage: inventory --list | --host NAME\0", 0o755, "names"),
        (b"\0usage: kubectl --list --hostname-override\0", 0o755, ""),
        (b'\0{"_meta": {"hostvars": {}}}', 0o644, ""),  # Ansible could not start it
    ],
)
def test_a_compiled_program_is_an_inventory_by_the_texts_in_it(
    text: bytes, mode: int, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "prod"
    path.write_bytes(b"\x7fELF" + b"\1" * (2 * 1024 * 1024) + text)
    path.chmod(mode)
    assert inventory_files.kind_of(str(path)) == kind


@pytest.mark.parametrize("name", ["notes.txt", "CHANGES.md", ".nvmrc", "x.retry", "list.log", "a.md.bak"])
def test_a_list_of_words_is_no_inventory_when_its_name_says_what_it_is(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("word\n")
    assert not inventory_files.is_inventory(str(tmp_path / name), is_beside=True)


def test_what_is_no_file_is_no_inventory_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "loop", "nothing", "."):
        assert inventory_files.kind_of(str(tmp_path / name)) == ""


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("[web]\na\n")
    assert inventory_files.kind_of(str(path)) == "inventory"
    path.write_text("just prose here\n")
    assert inventory_files.kind_of(str(path)) == ""


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "hosts: " + "{" * 100_000,
        "hosts: &a [" + "*a, " * 100_000 + "]",
        "[" * 500_000,
        "a " * 500_000,
        "hosts\n" + "'" * 500_000,
        "hosts:\n" + " - x\n" * 200_000,
        "- " * 300_000,
        "#\n" * 500_000,
        "[a:vars]\n" + "x y\n" * 200_000,
        "hosts vars plugin: " + "a: {b: " * 90 + "}" * 90,
        "web x='" + "y" * 1_000_000 + "'",
        ("web x='" + "y" * 16_000 + "'\n") * 64,
    ],
)
def test_a_text_that_is_made_to_take_long_does_not(text: str, tmp_path: Path) -> None:
    (tmp_path / "file.yml").write_text(text)
    inventory_files.kind_of(str(tmp_path / "file.yml"))


@pytest.mark.parametrize(
    ("name", "is_like"),
    [
        ("prod.ini", True),
        ("vault-prod", True),
        ("prod_keys", True),
        ("secrets.prod.yml", True),
        (".vault_pass_prod", True),
        (".prod.ini.swp", True),
        (".github", False),
        ("product", False),
        ("roles", False),
        ("site", False),
    ],
)
def test_what_is_named_like_an_inventory_belongs_to_it(name: str, is_like: bool) -> None:
    assert inventory_files.is_named_like(name, {"prod"}) == is_like
