"""A job has the limit of open files that its user has, and not that of an agent."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import SlurmCluster
from tests.slurm.conftest import WriteScript
from tests.slurm.waiting import until

SUBMIT = """
import asyncio, os, sys
from pathlib import Path
from hpc_agent.descriptors import descriptor_limit, raise_descriptor_limit
from hpc_agent.slurm.cli import SlurmCli
from hpc_agent.slurm.commands import ProcessRunner
raise_descriptor_limit()
assert descriptor_limit() == 4096
scheduler = SlurmCli(ProcessRunner(os.environ))
asyncio.run(scheduler.submit(Path(sys.argv[1]), name="n", comment="c"))
"""


@pytest.mark.slurm
async def test_job_does_not_get_the_raised_limit(
    slurm_cluster: SlurmCluster, write_script: WriteScript, tmp_path: Path
) -> None:
    """Slurm hands on what sbatch has (slurm.conf(5), PropagateResourceLimits)."""
    told = tmp_path / "limit"
    script = write_script(f"ulimit -Sn > {told}.new", f"mv {told}.new {told}")
    await asyncio.to_thread(
        subprocess.run,
        ["prlimit", "--nofile=700:4096", sys.executable, "-c", SUBMIT, str(script)],
        env=dict(slurm_cluster.environment),
        check=True,
    )
    await until(told.exists, "the job's word")
    assert told.read_text() == "700\n"
