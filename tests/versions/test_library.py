"""``dagster_hpc`` with Dagster and nothing else of ours, on each release of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dagster_hpc.runs import RUN, poll
from tests.versions.environments import NoEnvironmentError, make_environment
from tests.versions.test_versions import RELEASES

ROOT = Path(__file__).parents[2]
USER_CODE = ROOT / "tests" / "dagster_hpc"

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
    python = python_of(release)
    shutil.copy(USER_CODE / "user_code.py", tmp_path)
    environment, words = environment_in(tmp_path, installed)

    argv = [python, "-m", "dagster", "job", "execute", "-m", "user_code", "-a", "mixed"]
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


@pytest.mark.parametrize("release", RELEASES)
def test_a_killed_run_worker_resumes(release: str, installed: Path, tmp_path: Path) -> None:
    """What has ended is left alone, in a group as well; the rest is begun again."""
    python = python_of(release)
    modules = tmp_path / "tests" / "dagster_hpc"
    modules.mkdir(parents=True)
    for name in ("user_code.py", "run_worker.py"):
        shutil.copy(USER_CODE / name, modules)
    environment, words = environment_in(tmp_path, installed)

    def start(how: str) -> subprocess.Popen[bytes]:
        module = "tests.dagster_hpc.run_worker"
        argv = [python, "-m", module, how, "group_waits", RUN, "{'max_concurrent': 2}"]
        return subprocess.Popen(argv, env=environment, cwd=tmp_path)

    worker = start("run")
    poll(lambda: ran(words, "second_waits")["second_waits"], seconds=200)
    worker.kill()
    worker.wait()
    (words / "go").touch()
    assert start("resume").wait(timeout=200) == 0
    assert ran(words, "first", "here", "second_waits", "third") == {
        "first": 1,
        "here": 1,
        "second_waits": 2,
        "third": 1,
    }


def python_of(release: str) -> str:
    try:
        return str(make_environment(release))
    except NoEnvironmentError as reason:
        pytest.skip(f"no environment with dagster {release}: {reason}")


def environment_in(directory: Path, installed: Path) -> tuple[dict[str, str], Path]:
    """Return the environment of an instance below a directory, and where ops leave word."""
    home, words = directory / "home", directory / "words"
    home.mkdir()
    words.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{installed}{os.pathsep}{directory}",
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "TEST_DIRECTORY": str(words),
        "TMPDIR": str(directory),
    }
    return environment, words


def ran(words: Path, *names: str) -> dict[str, int]:
    """Return how often ops have run."""
    return {
        name: len(path.read_text().splitlines()) if path.exists() else 0
        for name in names
        for path in [words / f"{name}.ran"]
    }
