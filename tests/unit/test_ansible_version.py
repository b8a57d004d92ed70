"""An ansible-core that was not tested stops the start, unless the operator takes the risk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flansible.config import ansible_version
from flansible.errors import ConfigurationError

RANGE = "Requires-Dist: click\nRequires-Dist: ansible-core<2.22,>=2.19\n"
STARTS = {
    "up": ["-m", "flansible", "up"],
    "worker": ["-m", "flansible", "worker"],
    "celery by hand": ["-m", "celery", "-A", "flansible.celery_app", "worker"],
}


def install(folder: Path, name: str, version: str, more: str = "") -> None:
    """What pip leaves of a package, less the package."""
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all this Python finds installed."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder)])
    return folder


@pytest.mark.parametrize(
    ("version", "is_tested"),
    [
        ("2.18.6", False), ("2.19.0", True), ("2.19.14", True), ("2.20.10", True), ("2.21.5", True),
        ("2.21.0rc1", True), ("2.22.0", False), ("3.0", False),
    ],
)  # fmt: skip
def test_a_version_is_tested_when_it_is_in_the_range(packages: Path, version: str, is_tested: bool) -> None:
    install(packages, "flansible", "1", RANGE)
    install(packages, "ansible-core", version)
    assert ansible_version.ansible_version().is_tested == is_tested
    ansible_version.require_tested_ansible(allow_untested=True)
    if is_tested:
        return ansible_version.require_tested_ansible(allow_untested=False)
    with pytest.raises(ConfigurationError) as refusal:
        ansible_version.require_tested_ansible(allow_untested=False)
    for part in (f"ansible-core: {version}", "<2.22,>=2.19", "pip install", "allow_untested_ansible = true"):
        assert part in str(refusal.value)


def test_no_ansible_core_is_refused_with_what_to_install(packages: Path) -> None:
    install(packages, "flansible", "1", RANGE)
    with pytest.raises(ConfigurationError, match=r"not installed.*-m pip install 'ansible-core<2\.22,>=2\.19'"):
        ansible_version.require_tested_ansible(allow_untested=False)


def test_a_range_that_is_not_known_is_no_licence(packages: Path) -> None:
    install(packages, "ansible-core", "2.20.0")
    with pytest.raises(ConfigurationError, match="Flansible is not installed"):
        ansible_version.require_tested_ansible(allow_untested=False)


def test_taking_the_risk_leaves_a_line_in_the_log(packages: Path, caplog: pytest.LogCaptureFixture) -> None:
    install(packages, "flansible", "1", RANGE)
    install(packages, "ansible-core", "2.30.1")
    ansible_version.require_tested_ansible(allow_untested=True)
    assert "2.30.1 is not a tested version" in caplog.text


def test_the_version_here_is_one_of_those_tested() -> None:
    ansible_version.require_tested_ansible(allow_untested=False)


@pytest.mark.parametrize("how", STARTS)
def test_a_start_with_an_untested_version_ends_with_a_message_and_2(tmp_path: Path, how: str) -> None:
    install(tmp_path / "packages", "ansible-core", "2.99.0")
    ended = subprocess.run(
        [sys.executable, "-P", *STARTS[how]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "packages"), "PYTHONWARNINGS": "ignore"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("ansible-core: 2.99.0 is not a tested version")
    assert ended.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["packages"]
