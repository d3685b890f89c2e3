"""Commands as jobs of a real Slurm of two nodes, without an agent."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.cluster import SlurmCluster
from tests.dagster_hpc.events import materializations, messages

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

CODE = Path(__file__).with_name("cluster_code.py")
SCRIPT = """#!/bin/bash
#SBATCH --nodes=2 --ntasks=2
#SBATCH --job-name=solve --output=solve-%j.out
cd / && cd "$SLURM_SUBMIT_DIR"
srun bash -c 'echo $SLURMD_NODENAME' | sort >nodes.txt
"""


@pytest.fixture(scope="module")
def home(slurm_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of one run of all assets, which has ended."""
    home = tmp_path_factory.mktemp("home")
    (home / "dagster.yaml").touch()
    (home / "solve.sbatch").write_text(SCRIPT)
    ranks = home / "ranks"
    compiler = shutil.which("mpicc") or "mpicc"
    try:
        subprocess.run([compiler, "-o", ranks, CODE.with_name("ranks.c")], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no MPI to compile with here: install libopenmpi-dev")
    environment = {
        **os.environ,
        **slurm_cluster.environment,
        "DAGSTER_HOME": str(home),
        "DAGSTER_HPC_LAUNCHER": "sbatch",
        "DAGSTER_HPC_DIRECTORY": str(home / "jobs"),
        "RANKS": str(ranks),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    argv = [sys.executable, "-m", "dagster", "job", "execute", "-f", str(CODE)]
    subprocess.run([*argv, "-j", "__ASSET_JOB"], env=environment, check=True, cwd=home)
    yield home


@pytest.fixture
def run(home: Path) -> Iterator[tuple[dg.DagsterInstance, str]]:
    """The instance, and the id of the run."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (found,) = instance.get_runs()
        yield instance, found.run_id


def test_compiled_program_has_its_ranks(run: tuple[dg.DagsterInstance, str]) -> None:
    """By srun on one node, and by mpirun on two; one of them reports."""
    told = dict(materializations(*run))
    assert (told["field"]["ranks"], told["wide_field"]["ranks"]) == (2, 2)
    assert len(set(str(told["wide_field"]["ranks on"]).split())) == 2
    assert str(told["field"]["job_id"]).isdigit()


def test_script_has_the_options_of_its_lines(
    home: Path, run: tuple[dg.DagsterInstance, str]
) -> None:
    """It is a job of two nodes, and its output is where it has put it."""
    told = dict(materializations(*run))["solve"]
    assert told["nodes"]
    assert len((home / "nodes.txt").read_text().split()) == 2


def test_command_is_warned_and_goes_on_in_another_job(
    run: tuple[dg.DagsterInstance, str],
) -> None:
    """SIGTERM comes before the time is up, and the next job finds the checkpoint."""
    told = dict(materializations(*run))["long_one"]
    assert told["job_id"]
    said = messages(*run)
    assert "warned" in said
    assert any("another job" in each for each in said)
