"""Record what a version of Slurm prints: ``python -m tests.slurm.recording 26.05``.

Starts a cluster of that version with accounting, makes jobs that ended, run and wait, and writes
the output of the scheduler's own queries to tests/recorded/VERSION/; then the same of jobs whose
node's Prolog fails. It takes some minutes: a time limit is a minute at least.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hpc_agent.slurm import sacct, scontrol, sinfo, squeue
from hpc_agent.slurm.cli import SlurmCli, slurm_on_this_host
from hpc_agent.slurm.scheduler import JobRecord, Look
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import ENVIRONMENT, FIELD, RECORD
from tests.cluster import SlurmCluster, cluster_tool, start_cluster

RECORDED = Path(__file__).parent.parent / "recorded"
NAME = 'na me|x=1; echo "q"\nsecond'
COMMENT = "evil|a=b UserId=x(1) c\nline2 é"
LIMIT_SECONDS = 300.0
# How they are called: the line of the script, and the options.
JOBS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "running": ("sleep 900", ("--time=2-03:04:05", "--partition=batch", "--nodelist=c1")),
    "timeout": ("sleep 900", ("--time=1", "--nodelist=c2")),
    "failed-hostile-name": ("exit 3", ()),
    "completed": ("true", ()),
    "killed": ("kill -9 $$", ()),
    "canceled": ("sleep 900", ("--nodelist=c2",)),
    "requeued": ("test $SLURM_RESTART_COUNT && exit 5; sleep 900", ("--requeue",)),
    "held": ("true", ("--hold",)),
    "begin": ("true", ("--begin=now+1hour",)),
    "pending": ("true", ("--exclusive", "--nodes=2")),
}
TASKS = "array"


def read(name: str, version: str = "22.05") -> str:
    """Return a recorded output, with the separators of this process."""
    text = (RECORDED / version / name).read_text()
    return text.replace("\x1f", FIELD).replace("\x1e", RECORD)


class Recorder:
    """Makes jobs on a cluster and writes down what is said of them."""

    def __init__(self, version: str, cluster: SlurmCluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.target = RECORDED / version
        self.target.mkdir(exist_ok=True)
        self.slurm: SlurmCli = slurm_on_this_host(cluster.environment, burst=1000)
        self.since = datetime.now(UTC) - timedelta(minutes=1)
        self.ids: dict[str, str] = {}

    async def record(self) -> None:
        """Make the jobs and write every output."""
        for job, (line, options) in JOBS.items():
            await self.submit(job, line, *options)
        held = self.script(TASKS, "true", "--hold")
        array = await self.slurm.submit_array(held, name=TASKS, comment=TASKS, size=4)
        await self.see("running", JobState.RUNNING)
        await self.see("canceled", JobState.RUNNING)
        await self.slurm.cancel(self.ids["canceled"])
        await self.see("requeued", JobState.RUNNING)
        self.command("scontrol", "requeue", self.ids["requeued"])
        await self.see("requeued", JobState.PENDING)
        self.command("scontrol", "update", f"JobId={self.ids['requeued']}", "StartTime=now+2")
        for ended in ("failed-hostile-name", "completed", "killed", "requeued", "timeout"):
            await self.see(ended, *(state for state in JobState if state.is_final))
        await self.accounted("running", "held", "timeout", "requeued", "canceled")
        self.write(
            {
                "squeue": squeue.arguments(),
                "sacct": sacct.arguments(self.ids.values(), since=self.since),
                "sinfo-version": sinfo.version_arguments(),
                "sinfo-partitions": sinfo.partition_arguments(),
                "sinfo-nodes": sinfo.node_arguments(),
                "scontrol-ping": scontrol.ping_arguments(),
                "scontrol-config": scontrol.config_arguments(),
                "scontrol-job-array-task": scontrol.show_arguments(f"{array}_2"),
                **{f"scontrol-job-{job}": scontrol.show_arguments(self.ids[job]) for job in JOBS},
            }
        )

    async def record_prolog(self) -> None:
        """The same of two jobs on nodes whose Prolog fails: one is to be requeued, one is not."""
        for job in self.ids.values():
            await self.slurm.cancel(job)
        prolog = self.directory / "prolog"
        prolog.write_text("#!/bin/sh\nexit 1\n")
        prolog.chmod(0o755)
        assert self.cluster.directory is not None
        options = ("--version", self.target.name) if self.target.name != "22.05" else ()
        line = ("--conf-line", f"Prolog={prolog}")
        cluster_tool("up", "--accounting", *options, *line, directory=self.cluster.directory)
        self.ids = {}
        await self.submit("prolog-no-requeue", "sleep 900", "--no-requeue", "--nodelist=c1")
        await self.submit("prolog-requeue", "sleep 900", "--requeue", "--nodelist=c2")
        await self.see("prolog-no-requeue", JobState.CANCELLED)
        await self.until(lambda look: look["prolog-requeue"].restarts == 1)
        await self.accounted("prolog-no-requeue")
        ids = self.ids.values()
        self.write(
            {
                "squeue-prolog": squeue.arguments(",".join(ids)),
                "sacct-prolog": sacct.arguments(ids, since=self.since),
            }
        )

    async def submit(self, job: str, line: str, *options: str) -> None:
        """Submit a job that is called so, all but the one with a hostile name."""
        is_hostile = "hostile" in job
        name, comment = (NAME, COMMENT) if is_hostile else (f"hpc-agent:run-{job}", f"run-{job}")
        script = self.script(job, line, *options)
        self.ids[job] = await self.slurm.submit(script, name=name, comment=comment)

    def script(self, job: str, line: str, *options: str) -> Path:
        """Write a script into a directory of that name."""
        directory = self.directory / job
        directory.mkdir(exist_ok=True)
        lines = [f"#SBATCH {each}" for each in ("--output=/dev/null", "--chdir=/tmp", *options)]
        script = directory / "job.sh"
        script.write_text("\n".join(["#!/bin/bash", *lines, line, ""]))
        return script

    async def see(self, job: str, *states: JobState) -> None:
        """Wait until the job is in one of these states."""
        await self.until(lambda jobs: jobs[job].state in states)

    async def accounted(self, *jobs: str) -> None:
        """Wait until accounting says of these what the queue says."""
        queued = {job.job_id: job.state for job in (await self.slurm.queue()).records}

        async def look() -> Look:
            return await self.slurm.history(self.ids.values(), since=self.since)

        await self._until(
            look, lambda found: all(found[job].state is queued[self.ids[job]] for job in jobs)
        )

    async def until(self, condition) -> None:  # type: ignore[no-untyped-def]
        """Wait until the queue is so."""
        await self._until(self.slurm.queue, condition)

    async def _until(self, look, condition) -> None:  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            records: dict[str, JobRecord] = {job.job_id: job for job in (await look()).records}
            found = {job: records[each] for job, each in self.ids.items() if each in records}
            if len(found) == len(self.ids) and condition(found):
                return
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.5)

    def write(self, queries: Mapping[str, list[str]]) -> None:
        """Write what the commands print, with separators that are the same in every process."""
        for file, argv in queries.items():
            text = self.command(*argv).replace(FIELD, "\x1f").replace(RECORD, "\x1e")
            text = re.sub(rf"\b{re.escape(socket.gethostname())}\b", "head", text)
            (self.target / f"{file}.txt").write_text(text)

    def command(self, *argv: str) -> str:
        """Run one of Slurm's commands as the agent does."""
        # `env` finds the program on the cluster's PATH, not on that of this process.
        full = {**os.environ, **self.cluster.environment, **ENVIRONMENT}
        done = subprocess.run(["env", *argv], env=full, capture_output=True, check=True)
        return done.stdout.decode()


async def _record(version: str, cluster: SlurmCluster, directory: Path) -> None:
    recorder = Recorder(version, cluster, directory)
    await recorder.record()
    await recorder.record_prolog()


def main() -> None:
    """Record the version that the command line names."""
    version = sys.argv[1]
    directory = Path(tempfile.mkdtemp(prefix="hpc-slurm-"))
    directory.chmod(0o755)
    try:
        cluster = start_cluster(directory, accounting=True, version=version)
        asyncio.run(_record(version, cluster, directory))
    finally:
        if (directory / "cluster.json").exists():
            cluster_tool("down", directory=directory)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
