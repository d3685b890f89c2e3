"""Running the suites on a side, and what became of each test."""

from __future__ import annotations

import enum
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.storage_suites.recorder import OUTCOMES_VARIABLE
from tests.storage_suites.sdist import ROOT
from tests.storage_suites.side import SIDE_VARIABLE, URL_VARIABLE, Side

SUITES = Path(__file__).with_name("suites.py")
STAND_IN = Path(__file__).with_name("stand_in")
TEST_SECONDS = 300


class Result(enum.StrEnum):
    """What pytest says of a test."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a test, and why where it did not pass."""

    result: Result
    why: str


class NoOutcomesError(Exception):
    """Pytest did not get through; the message is what it said last."""


def run(
    side: Side, sdist: Path, url: str | None, only: str, directory: Path
) -> Mapping[str, Outcome]:
    """Run the tests that pytest's ``-k`` chooses, in a process of their own.

    Raises NoOutcomesError.
    """
    written = directory / f"{side}.json"
    environment = {
        **os.environ, SIDE_VARIABLE: str(side), OUTCOMES_VARIABLE: str(written),
        "PYTHONPATH": os.pathsep.join(str(each) for each in (ROOT, sdist, STAND_IN)),
    }  # fmt: skip
    if url:
        environment[URL_VARIABLE] = url
    done = subprocess.run(
        _argv(only), env=environment, cwd=directory, capture_output=True, text=True, check=False
    )
    if not written.exists():
        raise NoOutcomesError(f"{side}: {(done.stdout + done.stderr)[-2000:]}")
    found = json.loads(written.read_text())
    return {name: Outcome(Result(result), why) for name, (result, why) in found.items()}


def _argv(only: str) -> Sequence[str]:
    """Call pytest with none of our own settings: Dagster's tests have other ones."""
    argv = [sys.executable, "-m", "pytest", str(SUITES), "-c", os.devnull, "--rootdir", str(ROOT)]
    argv += ["-p", "tests.storage_suites.recorder", "-p", "no:cacheprovider", "-W", "ignore"]
    return [*argv, "--quiet", "--tb", "short", "--timeout", str(TEST_SECONDS), "-k", only]
