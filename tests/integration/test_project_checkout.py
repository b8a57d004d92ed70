"""A commit's tree as it is written from a real repository, and what a hostile repository tries meanwhile."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flansible.authorization import isolation
from flansible.config import Settings
from flansible.errors import ProjectError
from flansible.models import AuthorizedRun, ProjectRun, State, Step
from flansible.projects import checkout, order, prepare
from flansible.projects.git_command import prepared
from flansible.projects.mirror import Refs
from flansible.projects.order import Order
from flansible.projects.shelf import FolderLease, make_room
from flansible.worker import project_tasks
from flansible.worker.outcome import Outcome
from tests.helpers.repositories import Repository, git_daemon
from tests.helpers.waiting import require_program


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.make(tmp_path / "remotes" / "shop")


class Machine:
    """A worker's folder, in which projects are made ready without a worker."""

    def __init__(self, folder: Path, isolated: isolation.Mode = "auto") -> None:
        self.settings = Settings(data_dir=folder / "data", isolation=isolated)
        self.said: list[str] = []

    def resolve(self, project: ProjectRun) -> dict[str, Any]:
        return prepare.answer(project_tasks.order_of("resolve", project, self.settings, 20), {})

    def tags(self, project: ProjectRun, glob: str) -> dict[str, Any]:
        asked = project.model_copy(update={"ref": glob})
        return prepare.answer(project_tasks.order_of("tags", asked, self.settings, 20), {})

    def tree(self, project: ProjectRun) -> Path:
        """Makes a project ready at its commit, or at that of its ref."""
        commit = project.commit or self.resolve(project)["commit"]
        self.said.clear()
        found = project.model_copy(update={"commit": commit})
        wanted = project_tasks.order_of("prepare", found, self.settings, 60)
        prepare.make_ready(wanted, {}, self.said.append)
        return prepare.tree_of(wanted)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def shop(repository: Repository | str, **changes: Any) -> ProjectRun:
    url = repository if isinstance(repository, str) else str(repository.folder)
    return ProjectRun.model_validate({"name": "shop", "url": url, "ref": "main", **changes})


def test_a_ref_is_a_branch_a_tag_the_default_or_a_commit(repository: Repository, machine: Machine) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.git("tag", "-a", "v1", "-m", "v1")
    second = repository.commit({"site.yml": "[]"})
    found = {ref: machine.resolve(shop(repository, ref=ref)) for ref in ("main", "v1", "", first, "refs/tags/v1")}
    assert {ref: answer["commit"] for ref, answer in found.items()} == {
        "main": second,
        "v1": first,
        "": second,
        first: first,
        "refs/tags/v1": first,
    }
    assert found[""]["ref"] == "main"


def test_an_unknown_ref_is_answered_with_the_nearest_of_those_allowed(repository: Repository, machine: Machine) -> None:
    for name in ("release/1.0", "secret/1.0"):
        repository.git("branch", name)
    answer = machine.resolve(shop(repository, ref="relaese/1.0", allow_refs=("main", "release/*")))
    assert answer == {"error": "unknown_ref", "near": ["release/1.0"]}


def test_the_nearest_of_very_many_names_are_found_in_time() -> None:
    """A worker's look-up ends after nine seconds; without an answer a wrong name would be no wrong name."""
    every = Refs({f"refs/heads/b/{number}": "c" * 40 for number in range(50_000)} | {"refs/heads/main": "c" * 40})
    began = time.monotonic()
    assert every.nearest("mian", ("*",)) == ["main"]
    assert every.nearest("b/nothing", ("*",)) == []
    assert time.monotonic() - began < 6


def test_a_branch_does_not_pass_for_a_tag_of_the_same_name(repository: Repository, machine: Machine) -> None:
    tagged = repository.git("rev-parse", "HEAD")
    repository.git("tag", "v1")
    project = shop(repository, ref="v1", allow_refs=("v1",))
    assert machine.resolve(project)["commit"] == tagged
    repository.git("checkout", "-q", "-b", "v1")
    pushed = repository.commit({"site.yml": "[]"})
    assert machine.resolve(project) == {"error": "ambiguous_ref"}

    def found(ref: str, *allowed: str) -> dict[str, Any]:
        return machine.resolve(shop(repository, ref=ref, allow_refs=allowed))

    assert [found(f"refs/{kind}/v1", "*")["commit"] for kind in ("heads", "tags")] == [pushed, tagged]
    # v1 may have been meant as the tag: of two, each is allowed by its full name alone.
    for ref in ("refs/heads/v1", pushed):
        for allowed in ("v1", "refs/tags/*"):
            assert found(ref, allowed) == {"error": "not_reachable"}
        assert found(ref, "refs/heads/v*")["commit"] == pushed
    machine.tree(shop(repository))  # it has all refs now, and is asked without the remote
    shutil.move(repository.folder, repository.folder.with_name("away"))
    assert machine.resolve(project.model_copy(update={"must_answer": False})) == {"error": "ambiguous_ref"}
    inner = project.model_copy(update={"ref": pushed, "must_answer": False})
    assert machine.resolve(inner) == {"error": "not_reachable"}


def test_a_commit_must_be_in_an_allowed_branch_or_tag(repository: Repository, machine: Machine) -> None:
    repository.git("checkout", "-q", "-b", "other")
    hidden = repository.commit({"other.yml": "[]"})
    repository.git("update-ref", "refs/pull/1/head", hidden)
    project = shop(repository, ref=hidden, allow_refs=("main",))
    assert machine.resolve(project) == {"error": "not_reachable"}
    assert machine.resolve(project.model_copy(update={"allow_refs": ("*",)}))["commit"] == hidden
    repository.git("checkout", "-q", "main")
    repository.git("branch", "-D", "other")  # only what anybody may push has it now
    assert Machine(machine.settings.data_dir / "other").resolve(shop(repository, ref=hidden))["error"] == "unknown_ref"
    assert machine.resolve(shop(repository, ref="refs/pull/1/head"))["error"] == "unknown_ref"


def test_a_commit_that_a_branch_or_tag_is_known_to_have_is_found_without_a_fetch(
    repository: Repository, machine: Machine
) -> None:
    inner = repository.commit({"site.yml": "[]"})
    newest = repository.commit({"site.yml": "[1]"})
    repository.git("tag", "-a", "v1", "-m", "v1")
    assert machine.resolve(shop(repository, ref=newest, allow_refs=("v*",)))["commit"] == newest
    mirrors = machine.settings.data_dir / "projects" / "shop" / "mirrors"
    assert not list(mirrors.glob("*.git"))
    machine.tree(shop(repository))
    [lock] = mirrors.glob("*.lock")
    with lock.open() as held:  # another process fetches for a long time
        fcntl.flock(held, fcntl.LOCK_EX)
        assert machine.resolve(shop(repository, ref=inner))["commit"] == inner
        repository.commit({"site.yml": "[2]"})
        assert machine.resolve(shop(repository, ref=inner, allow_refs=("v*",)))["commit"] == inner
    repository.git("tag", "-d", "v1")
    assert machine.resolve(shop(repository, ref=inner, allow_refs=("v*",))) == {"error": "not_reachable"}


def test_a_remote_that_is_away_is_named_and_what_is_at_hand_is_used_where_that_is_allowed(
    repository: Repository, machine: Machine
) -> None:
    commit = repository.git("rev-parse", "HEAD")
    machine.tree(shop(repository))
    shutil.move(repository.folder, repository.folder.with_name("away"))
    answer = machine.resolve(shop(repository))
    assert answer["error"] == "unreachable"
    assert "does not appear to be a git repository" in answer["message"]
    answer = machine.resolve(shop(repository, must_answer=False))
    assert (answer["commit"], len(answer["date"])) == (commit, 10)
    assert answer["remote"]
    assert machine.resolve(shop(repository, ref="never-seen", must_answer=False))["error"] == "unreachable"
    assert (machine.tree(shop(repository, commit=commit)) / "site.yml").exists()


def test_a_list_of_files_ends_with_the_time_limit_of_its_run(repository: Repository, machine: Machine) -> None:
    class Recorder:
        events: list[dict[str, Any]] = []

        def add_event(self, event: dict[str, Any]) -> None:
            self.events.append(event)

    def listed(seconds: int) -> Outcome:
        project = shop(repository, commit=repository.git("rev-parse", "HEAD"), requirements="none")
        machine.tree(project)
        step = Step(program="project", argv=(), cwd="/", listing="files")
        run = AuthorizedRun(kind="git", user="lee", summary="list", steps=(step,), project=project, time_limit=seconds)
        nothing_to_run: Any = None
        recorder: Any = Recorder()
        return project_tasks.carry_out(nothing_to_run, recorder, run, project, None, machine.settings)

    assert listed(60).state is State.SUCCEEDED
    assert [one["playbook"] for one in Recorder.events[0]["plan"]["playbooks"]] == ["site.yml"]
    slow = "- hosts: all\n  x: [" + "{a: b}," * 30_000 + "]\n"  # six of them take seconds to parse
    repository.commit({f"slow-{number}.yml": slow for number in range(6)})
    outcome = listed(1)
    assert outcome.state is State.FAILED and "more than can be listed in the time" in outcome.description


def test_each_commit_keeps_its_tree_while_others_are_pushed(repository: Repository, machine: Machine) -> None:
    first = machine.tree(shop(repository))
    repository.commit({"site.yml": "[]", "new.yml": "[]"})
    second = machine.tree(shop(repository))
    assert first != second
    assert "first" in (first / "site.yml").read_text() and not (first / "new.yml").exists()
    assert (second / "site.yml").read_text() == "[]"


def test_a_commit_that_no_branch_has_any_more_is_still_what_runs(repository: Repository, machine: Machine) -> None:
    with git_daemon(repository.folder.parent) as url:
        project = shop(f"{url}/shop")
        commit = machine.resolve(project)["commit"]
        repository.git("commit", "-q", "--amend", "-m", "another")
        tree = machine.tree(project.model_copy(update={"commit": commit}))
    assert tree.name == commit


def test_what_is_export_ignored_is_there_and_no_filter_is_run(repository: Repository, machine: Machine) -> None:
    mark = machine.settings.data_dir / "filtered"
    repository.git("config", "filter.evil.smudge", f"touch {mark}; cat")
    repository.commit(
        {
            ".gitattributes": "kept.yml export-ignore\n*.txt filter=evil\n",
            ".gitconfig": f'[filter "evil"]\n\tsmudge = touch {mark}; cat\n',
            "kept.yml": "[]",
            "a.txt": "text\n",
        }
    )
    tree = machine.tree(shop(repository))
    assert (tree / "kept.yml").exists()
    assert (tree / "a.txt").read_text() == "text\n"
    assert not mark.exists()


def test_files_of_git_lfs_are_fetched_from_the_projects_own_server(repository: Repository, machine: Machine) -> None:
    elsewhere = "[lfs]\n\turl = file:///nowhere\n\tfetchexclude = nothing\n"
    repository.commit_lfs({"files/large.bin": "large" * 1000, ".lfsconfig": elsewhere})
    assert "git-lfs" in repository.git("show", "HEAD:files/large.bin")
    tree = machine.tree(shop(repository))
    assert (tree / "files/large.bin").read_text() == "large" * 1000
    assert "first" in (tree / "site.yml").read_text()
    machine.said.clear()
    repository.commit_lfs({"files/more.bin": "more"})
    assert (machine.tree(shop(repository)) / "files/large.bin").read_text() == "large" * 1000


def test_the_workers_own_process_leaves_files_of_git_lfs_to_a_step(repository: Repository, machine: Machine) -> None:
    commit = repository.commit_lfs({"large.bin": "large" * 1000})
    repository.git("rm", "-q", "large.bin", ".gitattributes")
    repository.commit({})
    machine.tree(shop(repository))  # which fetches both
    wanted = project_tasks.order_of("prepare", shop(repository, commit=commit), machine.settings, 20)
    with pytest.raises(ProjectError, match="Git LFS have to be fetched"):
        prepare.write_tree(wanted, machine.said.append)
    assert not prepare.tree_of(wanted).exists()


def test_where_git_lfs_cannot_fetch_pointers_stay_and_the_output_says_why(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit_lfs({"large.bin": "large" * 1000})
    unconfined = Machine(tmp_path, "none")
    tree = unconfined.tree(shop(repository, public_only=True))
    assert (tree / "large.bin").read_text().startswith("version https://git-lfs")
    assert any("project_hosts" in line for line in unconfined.said)
    (tmp_path / "bin").mkdir()
    for name in ("git", "sh", "rm", "awk"):
        (tmp_path / "bin" / name).symlink_to(require_program(name))
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path / "bin"))
        project = shop(repository, commit=repository.git("rev-parse", "HEAD"), name="other")
        tree = unconfined.tree(project)
    assert (tree / "large.bin").read_text().startswith("version https://git-lfs")
    assert any("git-lfs is not installed" in line for line in unconfined.said)


def test_a_commit_whose_files_of_git_lfs_are_missing_or_too_large_is_not_written(
    repository: Repository, machine: Machine
) -> None:
    repository.commit_lfs({"large.bin": "large" * 100_000})
    whole = machine.settings
    machine.settings = whole.model_copy(update={"projects_bytes": 400_000})
    with pytest.raises(ProjectError, match="Git LFS is larger than what a worker keeps"):
        machine.tree(shop(repository))
    machine.settings = whole
    shutil.rmtree(repository.folder / ".git/lfs/objects")
    with pytest.raises(ProjectError):
        machine.tree(shop(repository))
    assert not list((whole.data_dir / "projects/shop/shown/trees").glob("*/*"))


def test_hooks_of_the_repository_and_of_its_mirror_do_not_run(repository: Repository, machine: Machine) -> None:
    machine.tree(shop(repository))
    mark = machine.settings.data_dir / "hooked"
    [mirror] = (machine.settings.data_dir / "projects" / "shop" / "mirrors").glob("*.git")
    for folder in (repository.folder / ".git" / "hooks", mirror / "hooks"):
        folder.mkdir(exist_ok=True)
        for name in ("post-checkout", "post-merge", "reference-transaction", "pre-auto-gc", "post-index-change"):
            (folder / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
            (folder / name).chmod(0o755)
    repository.git("config", "core.hooksPath", "/dev/null")  # for the commit of this test itself
    repository.commit({"hooks/post-checkout": f"#!/bin/sh\ntouch {mark}\n"})
    repository.git("config", "--unset", "core.hooksPath")
    machine.tree(shop(repository))
    assert not mark.exists()


def test_links_out_of_the_tree_are_left_out_by_whatever_way_they_lead(repository: Repository, machine: Machine) -> None:
    links = {
        "absolute": "/etc/passwd",
        "above": "../../../../../../../../etc/passwd",
        "sibling": f"../{'0' * 40}/site.yml",
        "folder": "/etc",
        "loop": "loop",
        "roles/deep": "../../../mirrors",
        "good": "site.yml",
        "roles/up": "../site.yml",
        "inner": "inventories",
    }
    (repository.folder / "roles").mkdir()
    for name, target in links.items():
        os.symlink(target, repository.folder / name)
    (repository.folder / "by-inner").symlink_to("inner/../../../../kept")
    repository.commit({})
    tree = machine.tree(shop(repository))
    left = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_symlink()}
    assert left == {"good", "roles/up", "inner", "loop"}
    assert any("absolute" in line and "left out" in line for line in machine.said)
    for path in tree.rglob("*"):
        if not path.is_symlink() or os.path.exists(path):
            assert os.path.realpath(path).startswith(str(tree))


@pytest.mark.parametrize("name", (".git/config", ".GIT/hooks/post-checkout", "a/../../../x"))
def test_a_tree_with_paths_of_gits_own_or_out_of_it_is_refused(
    name: str, repository: Repository, machine: Machine
) -> None:
    """Such a tree is made without git's help, as an attacker would."""
    blob = repository.git("hash-object", "-w", "--stdin", data=b"x")
    for part in reversed(name.split("/")):
        kind = "100644 blob" if part == name.split("/")[-1] else "040000 tree"
        blob = repository.git("mktree", "--missing", data=f"{kind} {blob}\t{part}\n".encode())
    commit = repository.git("commit-tree", blob, "-m", "evil")
    repository.git("update-ref", "refs/heads/evil", commit)
    with pytest.raises(ProjectError):
        machine.tree(shop(repository, ref="evil"))
    assert not list((machine.settings.data_dir / "projects/shop/shown/trees").glob("*/*"))


def test_submodules_on_the_same_host_are_part_of_the_tree(repository: Repository, machine: Machine) -> None:
    inner = Repository.make(repository.folder.parent / "inner")
    with git_daemon(repository.folder.parent) as url:
        repository.git("submodule", "add", "-q", str(inner.folder), "roles/inner")
        repository.git("config", "-f", ".gitmodules", "submodule.roles/inner.url", "../inner")
        repository.commit({})
        inner.commit({"site.yml": "changed since"})
        tree = machine.tree(shop(f"{url}/shop", submodules=True))
        assert "first" in (tree / "roles/inner/site.yml").read_text()
        plain = machine.tree(shop(f"{url}/shop"))
    assert plain != tree
    assert not (plain / "roles/inner/site.yml").exists()


@pytest.mark.by_day(3)
@pytest.mark.parametrize(
    "given",
    (
        "/etc",
        "file:///srv/git/secret",
        "ext::sh -c touch% /tmp/x",
        "git://127.0.0.2/secret",
        "ssh://git@127.0.0.1/secret",
        "--upload-pack=touch",
        "git@127.0.0.1:secret",
        "https://127.0.0.1/secret",
    ),
)
def test_a_submodule_elsewhere_is_refused(given: str, repository: Repository, machine: Machine) -> None:
    inner = Repository.make(repository.folder.parent / "inner")
    repository.git("submodule", "add", "-q", str(inner.folder), "inner")
    repository.git("config", "-f", ".gitmodules", "submodule.inner.url", given)
    repository.commit({})
    with git_daemon(repository.folder.parent) as url, pytest.raises(ProjectError, match="leads elsewhere|disallowed"):
        machine.tree(shop(f"{url}/shop", submodules=True))


def test_relative_submodule_urls_follow_the_projects_own() -> None:
    for base, given, wanted in (
        ("https://h/team/shop.git", "../inner.git", "https://h/team/inner.git"),
        ("git@h:team/shop.git", "../inner.git", "git@h:team/inner.git"),
        ("ssh://git@h:22/srv/shop", "./inner", "ssh://git@h:22/srv/shop/inner"),
        ("https://h/shop", "../../../../x", "https://h/x"),
        ("https://h/shop", "https://h/other", "https://h/other"),
    ):
        assert checkout.absolute_url(given, base) == wanted


@pytest.mark.parametrize(
    "given",
    (
        "ssh://evil%2Fx@h/inner",
        "ssh://h?@evil/inner",
        "ssh://h#@evil/inner",
        "ssh://h\\@evil/inner",
        "ssh://[h/inner",
        "evil/x@h:inner",
        "ssh://me%40corp@h/inner",
    ),
)
def test_a_submodule_url_whose_host_git_may_read_differently_is_refused(given: str) -> None:
    with pytest.raises(ProjectError, match="no escape before the path"):
        checkout.absolute_url(given, "ssh://git@h/shop")


def test_only_signed_commits_are_made_ready(repository: Repository, machine: Machine, tmp_path: Path) -> None:
    key = tmp_path / "signer"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    signers = f"t@example.org {key.with_suffix('.pub').read_text()}"
    with pytest.raises(ProjectError, match="no signature of an allowed signer"):
        machine.tree(shop(repository, allowed_signers=signers))
    repository.git(
        "-c", "gpg.format=ssh", "-c", f"user.signingKey={key}", "commit", "-q", "--allow-empty", "-S", "-m", "s"
    )
    assert machine.tree(shop(repository, allowed_signers=signers)).is_dir()
    other = f"t@example.org {'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7yd0fQJmPAkrKpOGIOBOqzB1dX0o9BcCzQJxrQ1yVy'}\n"
    with pytest.raises(ProjectError, match="no signature"):
        machine.tree(shop(repository, allowed_signers=other))


def test_a_git_that_hangs_is_ended_in_time(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        wanted = project_tasks.order_of(
            "resolve", shop(f"git://127.0.0.1:{silent.getsockname()[1]}/shop"), machine.settings, 1
        )
        began = time.monotonic()
        answer = prepare.answer(wanted, {})
    assert time.monotonic() - began < 10
    assert "took too long" in answer["message"]


@pytest.mark.nightly
def test_an_http_remote_that_goes_silent_is_given_up(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/shop"
        began = time.monotonic()
        answer = prepare.answer(project_tasks.order_of("resolve", shop(url), machine.settings, 300), {})
    assert time.monotonic() - began < 120
    assert answer["error"] == "unreachable" and "too slow" in answer["message"].lower(), answer


def test_git_sees_nothing_of_the_machine_but_its_own(repository: Repository, machine: Machine) -> None:
    if not isolation.of("auto").in_force:
        pytest.skip("bubblewrap does not work here")
    wanted = Order.of(project_tasks.order_of("prepare", shop(repository, commit="0" * 40), machine.settings, 20))
    wanted.own_folder.mkdir(parents=True)
    secret = machine.settings.data_dir / "secret.key"
    secret.write_text("the key of the service")
    written = wanted.own_folder / "copies" / "of-a-user" / "file"
    written.parent.mkdir(parents=True)
    written.write_text("what another run has written")
    with prepared(wanted, {"user": "git", "password": "of this project"}) as git:
        for words in (
            ["cat", str(secret)],
            ["cat", str(written)],
            ["cat", "/etc/shadow"],
            ["touch", str(wanted.own_folder / "x")],
        ):
            assert git.execute(words).returncode != 0
        environment = git.execute(["env"]).stdout.decode()
    assert "of this project" not in environment
    assert {line.partition("=")[0] for line in environment.splitlines()} & {"SSH_AUTH_SOCK", "DATABASE_URL"} == set()
    bare = replace(wanted, sandbox=(), offline_sandbox=())
    with prepared(bare, {}) as git:
        assert git.execute(["cat", str(secret)]).returncode == 0  # isolation = none: nothing is confined


CLEAN = """
import sys, time
from pathlib import Path
from flansible.projects.order import all_shelves
from flansible.projects.shelf import make_room
while True:
    make_room(all_shelves(Path(sys.argv[1])), int(sys.argv[2]), 1e9, time.time())
    time.sleep(0.001)
"""


@contextmanager
def killed_cleaners(projects: Path, most_bytes: int) -> Iterator[list[int]]:
    """Cleans up all the time, by processes that are killed one after the other; yields their ids."""
    over, chance, killed = threading.Event(), random.Random(0), list[int]()

    def clean() -> None:
        while not over.is_set():
            cleaner = subprocess.Popen([sys.executable, "-c", CLEAN, str(projects), str(most_bytes)])
            over.wait(chance.uniform(0.2, 0.8))
            cleaner.kill()
            cleaner.wait()
            killed.append(cleaner.pid)

    thread = threading.Thread(target=clean)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def disk_used(folder: Path) -> int:
    """By all that is in a folder, while others remove some of it."""
    used = 0
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names):
            with suppress(FileNotFoundError):
                used += os.lstat(os.path.join(above, name)).st_blocks * 512
    return used


@pytest.mark.parametrize("count", (4, pytest.param(500, marks=pytest.mark.nightly)))
def test_many_commits_run_once_each_take_no_more_room_than_they_may(
    count: int, repository: Repository, machine: Machine, tmp_path: Path
) -> None:
    """While runs use some of them, and cleaners are killed."""
    most, of_one = 1_000_000, 220_000
    machine.settings = machine.settings.model_copy(update={"projects_bytes": most})
    projects = tmp_path / "data" / "projects"
    shelf = order.trees(projects / "shop")
    shelf.make()
    small = {f"roles/r{number}/tasks/main.yml": f"# {number}\n" for number in range(12)}
    runs, largest = deque[tuple[FolderLease, str]](), 0
    with killed_cleaners(projects, most) as killed:
        for number in range(count):
            text = "x" * 50_000 + str(number)
            commit = repository.commit({**small, "large": text})
            runs.append((shelf.lease(commit), text))
            assert machine.tree(shop(repository, commit=commit)) == runs[-1][0].path
            largest = max(largest, disk_used(projects / "shop" / "shown"))
            while len(runs) > 3 or number == count - 1 and runs:
                lease, wanted = runs.popleft()
                assert (lease.path / "large").read_text() == wanted
                assert {name: (lease.path / name).read_text() for name in small} == small
                lease.close()
    assert killed
    # Beside what is kept: the tree that was made last, and one that a cleaner is at.
    assert most / 2 < largest <= most + 2 * of_one or count < 10
    make_room([shelf], most, 1e9, time.time())
    assert disk_used(shelf.path(commit).parent) <= most
    assert [path.name for path in shelf.path(commit).parent.iterdir() if path.name.startswith(".")] == []
    print(f"{count} commits, {len(killed)} cleaners killed, at most {largest} bytes of {most}")


def test_a_commit_that_is_larger_than_all_that_may_be_kept_is_not_written(
    repository: Repository, machine: Machine
) -> None:
    machine.settings = machine.settings.model_copy(update={"projects_bytes": 1_000_000})
    repository.commit({"bomb": "0" * 2_000_000})
    with pytest.raises(ProjectError, match="larger than what a worker keeps"):
        machine.tree(shop(repository))


def test_many_small_files_count_with_what_they_take_on_disk(repository: Repository, machine: Machine) -> None:
    machine.settings = machine.settings.model_copy(update={"projects_bytes": 1_000_000})
    repository.commit({f"many/{number}": "" for number in range(300)})
    with pytest.raises(ProjectError, match="larger than what a worker keeps"):
        machine.tree(shop(repository))


def test_submodules_count_together_with_their_project(repository: Repository, machine: Machine) -> None:
    inner = Repository.make(repository.folder.parent / "inner")
    inner.commit({"large": "0" * 600_000})
    with git_daemon(repository.folder.parent) as url:
        for path in ("one", "two"):
            repository.git("submodule", "add", "-q", str(inner.folder), path)
            repository.git("config", "-f", ".gitmodules", f"submodule.{path}.url", "../inner")
        repository.commit({})
        assert (machine.tree(shop(f"{url}/shop", submodules=True)) / "two/large").exists()
        small = Machine(machine.settings.data_dir.parent / "small")
        small.settings = small.settings.model_copy(update={"projects_bytes": 1_000_000})
        with pytest.raises(ProjectError, match="larger than what a worker keeps"):
            small.tree(shop(f"{url}/shop", submodules=True))


def test_a_repository_that_is_larger_than_all_mirrors_may_be_is_not_fetched(
    repository: Repository, machine: Machine
) -> None:
    bounds = {"projects_bytes": 1_000_000, "mirrors_bytes": 1_000_000}
    machine.settings = machine.settings.model_copy(update=bounds)
    commit = repository.commit({"large": os.urandom(2_000_000).hex()})
    with pytest.raises(ProjectError, match="larger than what a worker keeps"):
        machine.tree(shop(repository, commit=commit))


def test_half_a_pack_of_a_git_that_was_killed_is_removed(repository: Repository, machine: Machine) -> None:
    machine.tree(shop(repository))
    [mirror] = (machine.settings.data_dir / "projects").glob("*/mirrors/*.git")
    left = mirror / "objects/pack/tmp_pack_XXXX"
    left.write_bytes(b"PACK")
    repository.commit({"site.yml": "second"})
    machine.tree(shop(repository))
    assert not left.exists()


def test_mirrors_take_no_more_room_than_they_may_and_one_in_use_stays(machine: Machine, tmp_path: Path) -> None:
    names = ("first", "second", "third")
    for name in names:
        Repository.make(tmp_path / "remotes" / name).commit({"large": os.urandom(100_000).hex()})

    def ready(name: str) -> Path:
        return machine.tree(shop(str(tmp_path / "remotes" / name)).model_copy(update={"name": name}))

    def kept() -> set[str]:
        return {path.parent.parent.name for path in (tmp_path / "data/projects").glob("*/mirrors/*.git")}

    ready("first")
    [path] = (tmp_path / "data/projects/first/mirrors").glob("*.git")
    machine.settings = machine.settings.model_copy(update={"mirrors_bytes": 250_000})
    with open(path.with_suffix(".used")) as used:  # as a fetch or a checkout has it
        fcntl.flock(used, fcntl.LOCK_SH)
        ready("second")
        assert kept() == {"first", "second"}  # who makes room uses its own
        ready("third")
        assert kept() == {"first", "third"}
    assert (ready("second") / "large").exists()  # its tree is still there, and needs no mirror
    assert kept() == {"third"}
    Repository(tmp_path / "remotes" / "second").commit({"more": "x"})
    assert (ready("second") / "more").exists()
    assert kept() == {"second"}
    assert not list((tmp_path / "data/projects").glob("*/mirrors/.gone-*"))


def test_two_runs_that_need_the_same_commit_fetch_it_once(repository: Repository, machine: Machine) -> None:
    project = shop(repository, commit=repository.git("rev-parse", "HEAD"))
    said: list[list[str]] = [[], []]

    def ready(number: int) -> None:
        prepare.make_ready(project_tasks.order_of("prepare", project, machine.settings, 60), {}, said[number].append)

    threads = [threading.Thread(target=ready, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum("fetching" in line for lines in said for line in lines) == 1
    assert (machine.tree(project) / "site.yml").exists()
    packs = list((machine.settings.data_dir / "projects").rglob("*.pack"))
    assert len(packs) <= 1


def test_tags_are_listed_by_their_versions_as_the_remote_has_them(machine: Machine, repository: Repository) -> None:
    for tag in ("v1.9", "v1.10", "v1.10.1", "nightly", "v2-rc", f"v{'9' * 150}"):
        repository.git("tag", tag)
    repository.git("tag", "-a", "v1.2", "-m", "annotated")
    repository.git("branch", "v3")
    found = machine.tags(shop(repository, ref=""), "v*")
    assert found == {"tags": [f"v{'9' * 150}", "v2-rc", "v1.10.1", "v1.10", "v1.9", "v1.2"]}
    assert machine.tags(shop(repository), "none*") == {"tags": []}
    machine.tree(shop(repository))
    shutil.move(repository.folder, repository.folder.with_name("gone"))
    assert machine.tags(shop(repository), "*")["error"] == "unreachable"
    assert machine.tags(shop(repository, must_answer=False), "night*") == {"tags": ["nightly"]}


@pytest.mark.parametrize("sign", ("\u2028", "\x85", "\xa0", "\u3000"))
def test_a_branch_whose_name_goes_on_after_what_python_takes_for_a_break_is_not_the_one_before_it(
    sign: str, repository: Repository, machine: Machine
) -> None:
    commit = repository.git("rev-parse", "HEAD")
    repository.git("checkout", "-q", "-b", f"main{sign}x")
    repository.commit({"site.yml": "pushed by somebody who may not push main"})
    repository.git("checkout", "-q", "main")
    assert machine.resolve(shop(repository))["commit"] == commit
    machine.tree(shop(repository))
    shutil.move(repository.folder, repository.folder.with_name("away"))
    assert machine.resolve(shop(repository, must_answer=False))["commit"] == commit


def test_a_branch_that_is_called_as_the_full_name_of_a_tag_is_not_that_tag(
    repository: Repository, machine: Machine
) -> None:
    repository.git("checkout", "-q", "-b", "other")
    pushed = repository.commit({"site.yml": "pushed by somebody who may not push tags"})
    repository.git("checkout", "-q", "main")
    repository.git("update-ref", "refs/heads/refs/tags/v1", pushed)
    repository.git("branch", "-q", "-D", "other")
    for ref in ("refs/heads/refs/tags/v1", pushed):
        answer = machine.resolve(shop(repository, ref=ref, allow_refs=("main", "refs/tags/*")))
        assert answer == {"error": "not_reachable"}
    assert machine.resolve(shop(repository, ref="refs/tags/v1"))["error"] == "unknown_ref"


def test_a_tag_of_a_tree_or_a_file_is_no_commit(repository: Repository, machine: Machine) -> None:
    repository.git("tag", "tree", "HEAD^{tree}")
    repository.git("tag", "-a", "file", "-m", "x", "HEAD:site.yml")
    for ref in ("tree", "file"):
        with pytest.raises(ProjectError, match="has no commit"):
            machine.tree(shop(repository, ref=ref))


def test_folders_that_lie_thousandfold_in_one_another_are_refused_and_leave_nothing(
    repository: Repository, machine: Machine
) -> None:
    def folders(count: int) -> str:
        found = repository.git("hash-object", "-w", "--stdin", data=b"x")
        for number in range(count):
            kind = "040000 tree" if number else "100644 blob"
            found = repository.git("mktree", data=f"{kind} {found}\ta\n".encode())
        return repository.git("commit-tree", found, "-m", "deep")

    repository.git("update-ref", "refs/heads/deep", folders(1500))
    with pytest.raises(ProjectError, match="more than 100 folders in one another"):
        machine.tree(shop(repository, ref="deep"))
    assert not list((machine.settings.data_dir / "projects/shop/shown/trees").glob("*"))
    repository.git("update-ref", "refs/heads/usual", folders(100))
    assert machine.tree(shop(repository, ref="usual")).is_dir()


def test_a_chain_of_very_many_links_is_looked_at_link_by_link(repository: Repository, machine: Machine) -> None:
    count = 3000
    for number in range(count):
        os.symlink(f"{number + 1}", repository.folder / str(number))
    os.symlink("/etc/passwd", repository.folder / str(count))
    repository.commit({})
    tree = machine.tree(shop(repository))
    assert sum(path.is_symlink() for path in tree.iterdir()) == count
    assert any(f"left out: {count}" in line for line in machine.said)
    for path in tree.iterdir():
        assert not path.is_symlink() or not path.exists()


def test_a_list_of_a_link_that_leads_to_itself_says_so(repository: Repository, machine: Machine) -> None:
    os.symlink("loop.yml", repository.folder / "loop.yml")
    project = shop(repository, commit=repository.commit({}), requirements="none")
    machine.tree(project)
    step = Step(program="project", argv=("loop.yml",), cwd="/", listing="files")
    run = AuthorizedRun(kind="git", user="lee", summary="list", steps=(step,), project=project, time_limit=60)
    unused: Any = None
    outcome = project_tasks.carry_out(unused, unused, run, project, None, machine.settings)
    assert outcome.state is State.FAILED and "a link leads to itself" in outcome.description
