"""Partitions that a user does not see (``Hidden=YES``), on a real Slurm, as no administrator."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.slurm.cli import SlurmCli, slurm_on_this_host
from hpc_agent.slurm.state import JobState
from tests.cluster import SlurmCluster, own_cluster
from tests.slurm.waiting import until_state

pytestmark = pytest.mark.slurm

_AS_NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups"
_COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")


@pytest.fixture(scope="module")
def secretive() -> Iterator[SlurmCluster]:
    """A cluster with a partition that squeue and sinfo do not show by themselves."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("to run commands as another user needs root and setpriv")
    with own_cluster(conf_lines=["PartitionName=secret Nodes=ALL Hidden=YES State=UP"]) as cluster:
        yield cluster


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may read; pytest's own are private."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def nobody(secretive: SlurmCluster, place: Path) -> SlurmCli:
    """Slurm's commands as the user nobody runs them: root is shown everything."""
    for command in _COMMANDS:
        real = shutil.which(command, path=secretive.environment["PATH"])
        script = place / command
        script.write_text(f'#!/bin/sh\nexec {_AS_NOBODY} {real} "$@"\n')
        script.chmod(0o755)
    path = f"{place}{os.pathsep}{secretive.environment['PATH']}"
    return slurm_on_this_host({**secretive.environment, "PATH": path}, burst=1000)


async def test_jobs_of_hidden_partitions_are_in_the_queue(nobody: SlurmCli, place: Path) -> None:
    """They would be absent from ``squeue --me``, and so be lost while they run."""
    script = place / "job.sh"
    script.write_text(
        "#!/bin/bash\n#SBATCH --partition=secret --output=/dev/null --chdir=/tmp\nsleep 300\n"
    )
    job_id = await nobody.submit(script, name="n", comment="c")
    await until_state(nobody, job_id, JobState.RUNNING)
    look = await nobody.queue()
    await nobody.cancel(job_id)
    assert look.is_complete
    (record,) = [record for record in look.records if record.job_id == job_id]
    assert (record.partition, record.state) == ("secret", JobState.RUNNING)


async def test_hidden_partitions_are_listed(nobody: SlurmCli) -> None:
    """Who names one in agent.yaml means it."""
    assert "secret" in {partition.name for partition in await nobody.partitions()}
    assert {name for node in await nobody.nodes() for name in node.partitions} >= {"secret"}
