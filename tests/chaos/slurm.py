"""The rig's own Slurm: one cluster for all faults, whose daemons can be killed and frozen."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import cluster_tool

NODES = 3
SERVERS_NODE = "c1"
RUN_NODES = ("c2", "c3")
SERVERS, RUNS, POOLS, URGENT = "servers", "runs", "pools", "urgent"
CONF_LINES = (
    # Faults of nodes strike runs; the code server is not what is measured.
    f"PartitionName={SERVERS} Nodes={SERVERS_NODE} MaxTime=1-00:00:00 State=UP",
    f"PartitionName={RUNS} Nodes={','.join(RUN_NODES)} MaxTime=01:00:00 State=UP",
    f"PartitionName={POOLS} Nodes={','.join(RUN_NODES)} MaxTime=01:00:00 State=UP",
    f"PartitionName={URGENT} Nodes={','.join(RUN_NODES)} PriorityTier=10 State=UP",
    "PreemptType=preempt/partition_prio",
    "PreemptMode=CANCEL",
    # A mute controller is noticed soon, and a node that is gone too.
    "MessageTimeout=5",
    "SlurmdTimeout=15",
    "SlurmctldTimeout=15",
    "DefMemPerCPU=64",
    "UnkillableStepTimeout=15",
)
OURS = "hpc-agent:"
_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounted:
    """A job as squeue or sacct has it."""

    job_id: str
    name: str
    state: str
    partition: str = ""
    submitted_at: float = 0.0

    @property
    def is_run(self) -> bool:
        """Whether it is a run worker's, by the partition that runs are sent to."""
        return self.partition == RUNS


class Slurm:
    """Starts with ``up``, which also brings back what a fault has taken down."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = Path()
        self.conf = directory / "etc" / "slurm.conf"

    def up(self) -> None:
        """Start what does not run, and wait until the nodes take jobs."""
        lines = [word for line in CONF_LINES for word in ("--conf-line", line)]
        status = cluster_tool(
            "up", "--nodes", str(NODES), "--accounting", *lines, directory=self.directory
        )
        self.bin = Path(status["bin_dir"])

    def down(self) -> None:
        """End all of it; its logs stay."""
        if (self.directory / "cluster.json").exists():
            for name in self.daemons():
                self.signal(name, signal.SIGCONT)
            cluster_tool("down", directory=self.directory)

    @property
    def environment(self) -> dict[str, str]:
        """What its commands need."""
        return {
            "SLURM_CONF": str(self.conf),
            "SLURM_TIME_FORMAT": "%s",
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/root"),
        }

    def run(self, *argv: str) -> str:
        """Run a command as the administrator, and return what it prints; "" when it fails."""
        try:
            done = subprocess.run(
                argv, env=self.environment, capture_output=True, text=True, check=False,
                timeout=_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout if done.returncode == 0 else ""

    def daemons(self) -> list[str]:
        """Return the names of its daemons that were started."""
        return [path.stem for path in (self.directory / "run").glob("*.json")]

    def pid(self, daemon: str) -> int | None:
        """Return the pid of a daemon that was started, and has not been killed by us."""
        path = self.directory / "run" / f"{daemon}.json"
        try:
            return int(json.loads(path.read_text())["pid"])
        except (OSError, ValueError):
            return None

    def signal(self, daemon: str, number: signal.Signals) -> None:
        """Send a signal to a daemon, if it lives."""
        pid = self.pid(daemon)
        if pid is not None and _belongs(pid, self.conf):
            os.kill(pid, number)

    def kill(self, daemon: str) -> None:
        """End a daemon as a crash does."""
        self.signal(daemon, signal.SIGKILL)
        pid = self.pid(daemon)
        until(lambda: pid is None or not _belongs(pid, self.conf), 10)

    def forget(self) -> None:
        """Lose what the controller, which must not run, has saved."""
        kept = {"munged.seed", "clustername"}
        for path in (self.directory / "state").iterdir():
            if path.name in kept:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def await_saving(self) -> None:
        """Wait until the controller, some seconds after a change, has saved its jobs again."""
        saved = self.directory / "state" / "job_state"
        before = saved.stat().st_mtime_ns
        deadline = time.monotonic() + 60
        while not saved.exists() or saved.stat().st_mtime_ns == before:
            if time.monotonic() > deadline:
                raise TimeoutError(f"slurmctld has not written {saved} for 60 s")
            time.sleep(0.02)

    def queue(self) -> list[Accounted] | None:
        """Return the jobs that have not ended; None when the controller does not say."""
        done = subprocess.run(
            ["squeue", "--noheader", "-o", "%i|%j|%T|%P"],
            env=self.environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        if done.returncode != 0:
            return None
        return [
            Accounted(job_id=job_id, name=name, state=state, partition=partition)
            for job_id, name, state, partition in _rows(done.stdout, 4)
        ]

    def pool_jobs(self) -> list[str]:
        """Return the allocations of pools that run."""
        return [
            job.job_id
            for job in self.queue() or []
            if job.partition == POOLS and job.state == "RUNNING"
        ]

    def accounted(self) -> list[Accounted]:
        """Return all jobs that accounting has; ids as the jobs themselves know them."""
        fields = "JobIDRaw,JobName,State,Partition,Submit"
        table = self.run("sacct", "-nPXa", "-S", "now-1day", f"--format={fields}")
        return [
            Accounted(
                job_id=job_id,
                name=name,
                state=state,
                partition=partition,
                submitted_at=float(submitted),
            )
            for job_id, name, state, partition, submitted in _rows(table, 5)
            if submitted.isdigit()
        ]

    def submit(self, script: str, *options: str) -> str:
        """Submit a job that is not the agent's, and return its id."""
        argv = ("sbatch", "--parsable", "--output=/dev/null", "--chdir=/tmp", *options)
        return self.run(*argv, f"--wrap={script}").strip()


def until(look: Callable[[], object], seconds: float) -> bool:
    """Look until it is so; return whether it came to be in time."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _rows(table: str, fields: int) -> list[list[str]]:
    rows = [line.split("|") for line in table.splitlines()]
    return [row for row in rows if len(row) == fields]


def _belongs(pid: int, conf: Path) -> bool:
    """Whether this process is one of this cluster's: pids are used again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return stat[0] not in "ZX" and f"SLURM_CONF={conf}".encode() in environment
