"""Properties that hold for whatever is sent: paths stay inside, frames stay frames, a bad request names its fields.

FUZZ=10000 tries more of each than the few hundred that are tried every time.
"""

from __future__ import annotations

import json
import os
import socket
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from flansible import wire
from flansible.authorization import authorize as authorize_request
from flansible.authorization.isolation import Isolation
from flansible.config import Settings
from flansible.errors import InvalidRequest, RequestError, WireError
from flansible.identity import users
from flansible.models import AdhocRequest, AuthorizedRun, GitRequest, PlaybookRequest
from flansible.web import parsing

pytestmark = [pytest.mark.generates, pytest.mark.timeout(1800)]
# The same examples each time, and nothing is kept between runs.
tried = settings(
    max_examples=int(os.environ.get("FUZZ", "150")), deadline=None, derandomize=True, database=None, print_blob=False
)


# Paths: a real tree, with links that lead out of what is allowed and back into it.


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = Path(os.path.realpath(tmp_path_factory.mktemp("tree")))
    for name in ("playbooks/demo/roles", "inventories/dev/group_vars", "inventories/prod", "outside"):
        (top / name).mkdir(parents=True)
    for name in ("playbooks/demo/site.yml", "playbooks/vault", "inventories/dev/hosts", "inventories/prod/hosts"):
        (top / name).write_text("- hosts: all\n")
    for name in ("outside/site.yml", "outside/vault", "inventories/dev-prod", "secret"):
        (top / name).write_text("- hosts: all\n")
    links = {
        "playbooks/out": "../outside",
        "playbooks/demo/out.yml": "../../outside/site.yml",
        "playbooks/demo/up": "..",
        "playbooks/loop": "loop",
        "playbooks/inventory": "../inventories/prod",
        "inventories/dev/out": "../prod",
        "inventories/dev/in": "hosts",
        "inventories/back": "dev",
        "outside/back": "../playbooks",
    }
    for name, target in links.items():
        (top / name).symlink_to(target)
    return top


NAMES = (
    "demo up out loop inventory dev prod dev-prod in back hosts site.yml out.yml vault roles group_vars outside "
    "inventories playbooks secret . .. ... ~ ~root ~/.. %2e%2e $HOME {{x}} @ -i --"
).split() + [
    "",
    " ",
    "\t",
    "\u2025",
    "x" * 255,
    "x" * 256,
    "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
]
word = st.sampled_from(NAMES) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
relative = st.lists(word, min_size=1, max_size=9).map("/".join)


def paths(top: Path) -> st.SearchStrategy[str]:
    """Relative ones, and absolute ones that begin within the tree."""
    begin = st.sampled_from(
        ["", "", "/", "//", f"{top}/", f"{top}/playbooks/", f"{top}/inventories/dev/", "/proc/self/cwd/"]
    )
    return st.tuples(begin, relative).map("".join).filter(str.strip)


def is_inside(path: str, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(folder)


def values_of(run: AuthorizedRun, option: str) -> list[str]:
    return [word.partition("=")[2] for step in run.steps for word in step.argv if word.startswith(f"{option}=")]


def stays_inside(run: AuthorizedRun, top: Path) -> None:
    root, dev = top / "playbooks", top / "inventories/dev"
    for inventory in values_of(run, "--inventory"):
        assert is_inside(inventory, dev), inventory
    vaults = values_of(run, "--vault-password-file")
    vaults += [value.partition("@")[2] for value in values_of(run, "--vault-id") if "@" in value]
    for path in (*vaults, *values_of(run, "--playbook-dir")):
        assert is_inside(path, root), path
    for step in run.steps:
        assert is_inside(step.cwd, root), step.cwd
        if step.program == "ansible-playbook":
            for name in step.argv[step.argv.index("--") + 1 :]:
                assert is_inside(os.path.join(step.cwd, name), root), name


def test_no_path_gets_a_restricted_user_outside(tree: Path) -> None:
    user = users.User("dev", "x", (tree / "inventories/dev",))
    found = Settings(playbook_root=tree / "playbooks", rbac_file=tree / "rbac.json", base_dir=tree, isolation="none")
    path = paths(tree)
    let_through: list[AuthorizedRun] = []

    @tried
    @given(path, path, path, path)
    @example("demo", "site.yml", "../../inventories/dev", "../vault")
    @example("up", "demo/site.yml", "../inventories/back/in", "vault")
    def tries(directory: str, playbook: str, inventory: str, vault: str) -> None:
        asked = {"inventory": inventory, "vault_password_file": vault}
        playbooks = {"playbook_dir": directory, "playbook": playbook}
        attempts: list[tuple[Any, Any]] = [
            (authorize_request.authorize_playbook, PlaybookRequest(**playbooks, **asked)),
            (
                authorize_request.authorize_playbook,
                PlaybookRequest(**playbooks, inventory=inventory, vault_id=f"a@{vault}"),
            ),
            (
                authorize_request.authorize_playbook,
                PlaybookRequest(playbook_dir="demo", playbook=playbook, inventory=f"{tree}/inventories/dev"),
            ),
            (
                authorize_request.authorize_adhoc,
                AdhocRequest(module="ping", chdir=directory, playbook_dir=playbook, **asked),
            ),
            (authorize_request.authorize_adhoc, AdhocRequest(module="ping", host_pattern="web1", inventory=inventory)),
            (authorize_request.authorize_git, GitRequest(playbook_dir=directory)),
        ]
        for authorize, request in attempts:
            try:
                confined = () if authorize is authorize_request.authorize_git else (Isolation("none"),)
                run = authorize(user, request, found, *confined)
            except RequestError:
                continue
            stays_inside(run, tree)
            let_through.append(run)

    tries()
    assert len(let_through) > min(20, tried.max_examples // 15), "what is always refused proves nothing"


# Frames


frame = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=20), max_size=4)
stream = st.lists(frame.map(wire.encode) | st.binary(max_size=40), max_size=6).map(b"".join)


def frames_of(chunks: Iterable[bytes]) -> tuple[list[wire.Frame], bool]:
    """What comes out of it, and whether it ended in a refusal."""
    reader = wire.FrameReader()
    found: list[wire.Frame] = []
    fed_bytes = 0
    for chunk in chunks:
        fed_bytes += len(chunk)
        try:
            for one in reader.feed(chunk):
                found.append(one)  # one by one: what came before a refusal counts
        except WireError:
            return found, True
        assert reader.pending_bytes <= fed_bytes
    return found, False


@tried
@given(stream, st.lists(st.integers(1, 20), max_size=20))
def test_any_bytes_in_any_pieces_give_the_same_frames_or_a_refusal(data: bytes, sizes: list[int]) -> None:
    chunks, rest = [], data
    for size in sizes:
        chunks.append(rest[:size])
        rest = rest[size:]
    assert frames_of([*chunks, rest]) == frames_of([data]) == frames_of(bytes([byte]) for byte in data)


@tried
@given(stream)
def test_any_bytes_on_a_socket_give_a_frame_an_end_or_a_refusal(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        found = []
        try:
            while (one := wire.receive(ours)) is not None:
                found.append(one)
        except WireError:
            pass
    assert found == frames_of([data])[0]


# Requests


MODELS: tuple[type[BaseModel], ...] = (AdhocRequest, PlaybookRequest, GitRequest)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(sorted({name for model in MODELS for name in model.model_fields}))
document = st.dictionaries(fields | st.text(max_size=12), anything, max_size=8) | anything


def test_any_json_is_a_request_or_a_refusal_that_names_the_fields(app: Flask) -> None:
    @tried
    @given(st.sampled_from(MODELS), document.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
    def tries(model: type[BaseModel], data: bytes) -> None:
        with app.test_request_context("/", method="POST", data=data, content_type="application/json"):
            try:
                assert isinstance(parsing.parse_body(model), model)
            except InvalidRequest as refused:
                assert refused.errors and all(item.field and item.message for item in refused.errors)
                json.dumps([refused.message, *(item.field for item in refused.errors)]).encode()

    tries()


TASK = "00000000-0000-4000-8000-000000000000"
PATHS = (
    f"ansibletaskoutput/{TASK}",
    f"ansibletaskevents/{TASK}",
    f"ansibletaskresult/{TASK}",
    "ansibletasks",
    "health",
)
names = st.sampled_from("format offset follow after host verdict limit wait before state user kind text".split())
pair = st.tuples(names | st.text(max_size=6), st.text(max_size=12) | st.integers().map(str) | st.floats().map(str))
raw_query = st.lists(pair, max_size=4).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs).encode(errors="replace").decode("latin-1")
)
header = st.text(string.printable.replace("\r", "").replace("\n", "") + "\x7f\xff", max_size=40) | st.integers().map(
    str
)


def test_any_query_and_any_header_is_answered_in_the_one_shape(app: Flask) -> None:
    """The store is away here: what is not refused before it is asked is a 503."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = "Basic YWRtaW46cm9vdA=="

    @tried
    @given(st.sampled_from(PATHS), raw_query, header, header, st.sampled_from(["*/*", "text/event-stream", "x", ""]))
    def tries(path: str, query: str, event_id: str, ranges: str, accept: str) -> None:
        headers = {"HTTP_LAST_EVENT_ID": event_id, "HTTP_RANGE": ranges, "HTTP_ACCEPT": accept, "QUERY_STRING": query}
        reply = client.get(f"/api/{path}", environ_overrides=headers, buffered=True)
        assert reply.status_code in (400, 503), reply.text
        body = reply.get_json()
        assert list(body) == ["message", "code", "errors"] or path == "health"
        if reply.status_code == 400:
            assert all(item["field"] is not None and item["message"] for item in body["errors"])

    tries()
