"""Templates of the releases of Dagster that are supported, under supervisors of old Pythons.

``make versions`` has them; the newest is installed, and has all other tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.relay.harness import INTERPRETERS
from tests.versions.environments import make_environment

from .dagster_runs import DagsterRuns
from .running import RunningPool, template

_CODE = """
from pathlib import Path
import dagster as dg

with (Path(__file__).parent / "imported").open("a") as file:
    file.write("x")

@dg.asset
def first():
    return 1

@dg.asset
def second(first):
    return first

@dg.definitions
def defs():
    job = dg.define_asset_job("both", executor_def=dg.in_process_executor)
    return dg.Definitions(assets=[first, second], jobs=[job])
"""


@pytest.mark.versions
@pytest.mark.parametrize("release", ["1.11", "1.12"])
def test_template_of_a_release_keeps_definitions(tmp_path: Path, release: str) -> None:
    """A run finds those of a function that makes them; the supervisor's Python is the oldest."""
    python = str(make_environment(release))
    (tmp_path / "definitions.py").write_text(_CODE)
    runs = DagsterRuns(tmp_path / "home", tmp_path / "definitions.py", "both", python)
    run, argv = runs.command()
    (tmp_path / "imported").unlink()
    pool = RunningPool(tmp_path / "pool", python=INTERPRETERS[-1])
    try:
        made = template(tmp_path, python=python, argv_prefix=argv[:4])
        assert pool.warm(made, "ready", "failed", "spares")["words"] == ""
        member = pool.member(1, argv, made)
        assert member.exit_record()["exit_code"] == 0, member.stderr
    finally:
        pool.close()
    assert "warm start" in member.log
    assert runs.status(run) == "SUCCESS"
    assert (tmp_path / "imported").read_text() == "x"
