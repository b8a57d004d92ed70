"""The wheel, installed into an empty virtual environment, runs a task and serves the console.

The other tests use an editable installation, which finds every file of the checkout and hides what the wheel lacks.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.helpers.services import Service, start_service

TOP = Path(__file__).parents[2]
PACKAGE = TOP / "flansible"
CONSOLE = PACKAGE / "web" / "console"

pytestmark = pytest.mark.timeout(600)  # pip installs about 60 packages, from its cache or the index


def files_below(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


def pip(python: Path, *arguments: str) -> None:
    """Runs pip with the user's own cache and index settings, which the tests' HOME hides."""
    environ = {**os.environ, "HOME": pwd.getpwuid(os.getuid()).pw_dir, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    ended = subprocess.run([str(python), "-m", "pip", *arguments], env=environ, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools writes build/ and egg-info beside setup.py."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, copy)
    shutil.copytree(PACKAGE, copy / "flansible", ignore=shutil.ignore_patterns("__pycache__"))
    built = tmp_path_factory.mktemp("wheel")
    pip(Path(sys.executable), "wheel", "--no-deps", f"--wheel-dir={built}", str(copy))
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a virtual environment that holds the wheel and the pinned requirements, nothing else."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip(python, "install", "-r", str(TOP / "requirements.txt"))
    pip(python, "install", "--no-deps", str(wheel))
    return python.parent


@pytest.fixture(scope="module")
def service(root: Path, scripts: Path) -> Iterator[Service]:
    running = start_service(root, scripts=scripts)
    yield running
    assert running.stop() < 10


def test_the_wheel_holds_each_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.removeprefix("flansible/") for name in archive.namelist() if name.startswith("flansible/")}
    assert names == files_below(PACKAGE)
    assert {".py", ".typed", ".js", ".css", ".svg", ".html"} <= {Path(name).suffix for name in names}


@pytest.mark.nightly
def test_the_package_comes_from_the_environment(scripts: Path, tmp_path: Path) -> None:
    command = [str(scripts / "python"), "-c", "import flansible; print(flansible.__file__)"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(shown.strip()).is_relative_to(scripts.parent)


@pytest.mark.nightly
def test_a_task_runs_from_it(service: Service) -> None:
    status, output = service.run(
        "ansiblecommand", {"module": "ping", "inventory": "../inventories/dev", "host_pattern": "dev1"}
    )
    assert (status["state"], status["returncode"]) == ("succeeded", 0), output
    assert '"ping": "pong"' in output


@pytest.mark.nightly
def test_the_console_is_served_from_it_whole(service: Service) -> None:
    client = service.client()
    page = client.get("/")
    assert page.status_code == 200 and "<html" in page.text
    for name in sorted(files_below(CONSOLE) - {"index.html"}):
        reply = client.get(f"/console/{name}")
        assert (reply.status_code, reply.content) == (200, (CONSOLE / name).read_bytes()), name


@pytest.mark.nightly
@pytest.mark.parametrize("path", ["/api/openapi.json", "/api/docs", "/api/spec", "/api/spec.html"])
def test_the_api_documents_are_served_from_it(service: Service, path: str) -> None:
    reply = httpx.get(f"{service.url}{path}", follow_redirects=True, timeout=30)
    assert reply.status_code == 200, reply.text
