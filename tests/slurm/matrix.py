"""docs/slurm-versions.md: the contract tests by transport and version of Slurm.

``python -m tests.slurm.matrix`` runs tests/slurm on every version and writes the page from what
passed; the tests of each run are noted by ``note`` (a hook in conftest.py calls it).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

VERSIONS = ("22.05", "24.11", "26.05")
TRANSPORTS = ("cli", "ssh", "rest", "pyslurm", "pyslurm (stand-in)", "local")
PAGE = Path(__file__).parents[2] / "docs" / "slurm-versions.md"

_WORKERS = ("--numprocesses", "2", "--dist", "loadfile")
_NOTES = "HPC_AGENT_TEST_NOTES"
_CONTRACT = "tests/slurm/test_scheduler_contract.py::"
# Fixtures that are not named like their transport: Slurm's own commands, and our part of pyslurm
# with a stand-in for the library.
_NAMES = {"slurm": "cli", "pyslurm_stand_in": "pyslurm (stand-in)"}
_HEAD = """# Transports and versions of Slurm

Written by `make slurm-versions`: do not edit. Each cell says how many of the contract tests
(`tests/slurm/test_scheduler_contract.py`) passed through a transport on a real cluster of
that version.

| transport | {versions} |
|---|{lines}|
"""

Notes = Sequence[Mapping[str, str]]


def note(report: pytest.TestReport) -> None:
    """Append the outcome of one test to the file of this run, when there is one."""
    path = os.environ.get(_NOTES)
    is_noted_elsewhere = "PYTEST_XDIST_WORKER" in os.environ
    if path is None or is_noted_elsewhere:
        return
    if report.when != "call" and report.outcome == "passed":
        return
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple | list) else ""
    line = {"test": report.nodeid, "outcome": report.outcome, "reason": reason}
    with Path(path).open("a") as file:
        file.write(json.dumps(line) + "\n")


def render(runs: Mapping[str, Notes]) -> str:
    """Return the page; ``runs`` has the notes of each version."""
    rows = [
        f"| `{transport}` | {' | '.join(_cell(transport, notes) for notes in runs.values())} |"
        for transport in TRANSPORTS
    ]
    return _HEAD.format(versions=" | ".join(runs), lines="|".join("---" for _ in runs)) + "".join(
        f"{row}\n" for row in rows
    )


def _cell(transport: str, notes: Notes) -> str:
    mine = [each for each in notes if _transport(each["test"]) == transport]
    passed = sum(each["outcome"] == "passed" for each in mine)
    failed = sum(each["outcome"] == "failed" for each in mine)
    reasons = sorted({each["reason"].removeprefix("Skipped: ") for each in mine} - {""})
    if failed:
        return f"{passed} passed, **{failed} failed**"
    if reasons:
        return f"{passed} passed; skipped: {'; '.join(reasons)}" if passed else "; ".join(reasons)
    return f"{passed} passed" if mine else "no contract test yet"


def _transport(test: str) -> str:
    if not test.startswith(_CONTRACT) or not test.endswith("]"):
        return ""
    word = test.rpartition("[")[2].rstrip("]").partition("-")[0]
    return _NAMES.get(word, word)


def main() -> int:
    """Run tests/slurm on every version, then write the page; 1 when a test failed.

    Arguments go to pytest; then no page is written.
    """
    runs: dict[str, Notes] = {}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="hpc-versions-") as directory:
        for version in VERSIONS:
            notes = Path(directory) / version
            notes.touch()
            environment = {**os.environ, "HPC_AGENT_TEST_SLURM": version, _NOTES: str(notes)}
            print(f"== Slurm {version}", flush=True)
            argv = [sys.executable, "-m", "pytest", "-q", *_WORKERS, "tests/slurm", *sys.argv[1:]]
            failed |= subprocess.run(argv, env=environment, check=False).returncode
            runs[version] = [json.loads(line) for line in notes.read_text().splitlines()]
    if not sys.argv[1:]:  # a part of the tests would make a wrong page
        PAGE.write_text(render(runs))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
