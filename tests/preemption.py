"""A real Slurm whose partitions preempt each other, for what an ordinary one does not do."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import SlurmCluster, own_cluster

_CONFIGURATION = """
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=requeued Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE MaxTime=60 State=UP
PartitionName=cancelled Nodes=ALL PriorityTier=1 PreemptMode=CANCEL MaxTime=60 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=60 State=UP
"""


@contextmanager
def preempting_cluster() -> Iterator[SlurmCluster]:
    """Start a cluster of two nodes, and take it down again; see own_cluster."""
    with own_cluster() as cluster:
        with Path(cluster.slurm_conf).open("a") as configuration:
            configuration.write(_CONFIGURATION)
        slurm(cluster, "scontrol", "reconfigure")
        yield cluster


def slurm(cluster: SlurmCluster, *argv: str) -> str:
    """Run a command of Slurm as the administrator and return what it prints."""
    done = subprocess.run(
        argv, env=dict(cluster.environment), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout.strip()


def sbatch(cluster: SlurmCluster, script: str, *options: str) -> str:
    """Submit a job of one line of shell and return its id."""
    argv = ("sbatch", "--parsable", "--output=/dev/null", "--chdir=/tmp", *options)
    return slurm(cluster, *argv, f"--wrap={script}")


def start_requeued(cluster: SlurmCluster, job_id: str) -> None:
    """Spare a requeued job most of the two minutes for which Slurm lets it wait.

    They are there because slurmd refuses a job for a second (credentials tell their age in whole
    ones) after it has ended one of the same id: Slurm would count it as FAILED.
    """
    update = "scontrol", "update", f"JobId={job_id}", "StartTime=now+2"
    slurm(cluster, *update)


def take_down(cluster: SlurmCluster, node: str) -> None:
    """Let a node fail, as far as the controller can tell."""
    slurm(cluster, "scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")


def bring_back(cluster: SlurmCluster, node: str) -> None:
    """Bring a node back; its slurmd may have done so by itself (ReturnToService=2)."""
    deadline = time.monotonic() + 60
    while slurm(cluster, "sinfo", "--noheader", f"--nodes={node}", "-o%T").startswith("down"):
        assert time.monotonic() < deadline, f"node {node} stays down"
        update = ["scontrol", "update", f"NodeName={node}", "State=RESUME"]
        subprocess.run(update, env=dict(cluster.environment), capture_output=True, check=False)
        time.sleep(0.2)
