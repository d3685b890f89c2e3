"""``dagster_hpc`` with Dagster and nothing else of ours, on each release of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.versions.environments import NoEnvironmentError, make_environment
from tests.versions.test_versions import RELEASES

ROOT = Path(__file__).parents[2]
USER_CODE = ROOT / "tests" / "dagster_hpc" / "user_code.py"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library as users get it: its wheel, installed into a directory."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=ROOT / "dagster_hpc", check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True)
    return target


@pytest.mark.parametrize("release", RELEASES)
def test_a_laptop_runs_steps_in_their_places(release: str, installed: Path, tmp_path: Path) -> None:
    """Mixed steps, a group with a retry, and steps that are killed, by Dagster's own command."""
    try:
        python = make_environment(release)
    except NoEnvironmentError as reason:
        pytest.skip(f"no environment with dagster {release}: {reason}")
    shutil.copy(USER_CODE, tmp_path)
    words = tmp_path / "words"
    words.mkdir()
    (tmp_path / "home").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{installed}{os.pathsep}{tmp_path}",
        "DAGSTER_HOME": str(tmp_path / "home"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "TEST_DIRECTORY": str(words),
        "TMPDIR": str(tmp_path),
    }

    argv = [str(python), "-m", "dagster", "job", "execute", "-m", "user_code", "-a", "mixed"]
    done = subprocess.run(
        argv,
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode != 0
    assert "ended before the step did (state FAILED, exit code 3)" in done.stderr
    assert ran(words, "unmarked", "third") == {"unmarked": 1, "third": 1}
    assert ran(words, "first", "second_at_second") == {"first": 1, "second_at_second": 2}
    assert ran(words, "killed_once", "never") == {"killed_once": 2, "never": 0}


def ran(words: Path, *names: str) -> dict[str, int]:
    """Return how often ops have run."""
    return {
        name: len(path.read_text().splitlines()) if path.exists() else 0
        for name in names
        for path in [words / f"{name}.ran"]
    }
