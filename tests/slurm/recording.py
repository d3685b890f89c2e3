"""Record what a version of Slurm prints: ``python -m tests.slurm.recording 26.05``.

Starts a cluster of that version with accounting, makes jobs that ended, run and wait, and writes
the output of the scheduler's own queries to tests/recorded/VERSION/.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hpc_agent.slurm import sacct, scontrol, sinfo, squeue
from hpc_agent.slurm.cli import slurm_on_this_host
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import ENVIRONMENT
from tests.cluster import SlurmCluster, cluster_tool, start_cluster
from tests.slurm.waiting import until, until_final, until_state

RECORDED = Path(__file__).parent.parent / "recorded"
NAME = 'na me|x=1; echo "q"\nsecond'
COMMENT = "evil|a=b UserId=x(1) c\nline2 é"


async def record(version: str, cluster: SlurmCluster, directory: Path) -> None:
    """Make the jobs and write every output."""
    slurm = slurm_on_this_host(cluster.environment, burst=1000)
    since = datetime.now(UTC) - timedelta(minutes=1)
    made = {
        "failed-hostile-name": ("exit 3", "", NAME, COMMENT),
        "running": ("sleep 300", "", "hpc-agent:run-running", "run-running"),
        "held": ("true", "#SBATCH --hold", "hpc-agent:run-held", "run-held"),
    }
    ids = {}
    for file, (line, option, name, comment) in made.items():
        script = directory / f"{file}.sh"
        script.write_text(f"#!/bin/bash\n#SBATCH --output=/dev/null\n{option}\n{line}\n")
        ids[file] = await slurm.submit(script, name=name, comment=comment)
    await until_final(slurm, ids["failed-hostile-name"])
    await until_state(slurm, ids["running"], JobState.RUNNING)
    history = sacct.arguments(list(ids.values()), since=since)
    await until(
        lambda: (
            {job.state for job in sacct.parse(_output(history, cluster.environment))}
            == {JobState.FAILED, JobState.RUNNING, JobState.PENDING}
        ),
        "the jobs' records in accounting",
    )
    queries = {
        "squeue": squeue.arguments(),
        "sacct": history,
        "sinfo-version": sinfo.version_arguments(),
        "sinfo-partitions": sinfo.partition_arguments(),
        "sinfo-nodes": sinfo.node_arguments(),
        "scontrol-ping": scontrol.ping_arguments(),
        **{f"scontrol-job-{file}": scontrol.show_arguments(job) for file, job in ids.items()},
    }
    target = RECORDED / version
    target.mkdir(exist_ok=True)
    for file, argv in queries.items():
        (target / f"{file}.txt").write_text(_output(argv, cluster.environment))


def _output(argv: list[str], environment: Mapping[str, str]) -> str:
    # `env` finds the program on the cluster's PATH, not on that of this process.
    full = {**os.environ, **environment, **ENVIRONMENT}
    done = subprocess.run(["env", *argv], env=full, capture_output=True, check=True)
    return done.stdout.decode()


def main() -> None:
    """Record the version that the command line names."""
    version = sys.argv[1]
    directory = Path(tempfile.mkdtemp(prefix="hpc-slurm-"))
    try:
        cluster = start_cluster(directory, accounting=True, version=version)
        asyncio.run(record(version, cluster, directory))
    finally:
        if (directory / "cluster.json").exists():
            cluster_tool("down", directory=directory)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
