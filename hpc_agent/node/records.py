"""What the node program leaves in the job directory: ``start.json`` and the exit record."""

from __future__ import annotations

import os
import re
import socket
import time
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional

from .job_files import write_json
from .journal import log

STDERR_TAIL_BYTES = 4096
# What the environment holds is not always text, and the agent takes no report that is none.
_NOT_OF_A_NAME = re.compile("[^\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")
_NOT_OF_AN_ID = re.compile("[^A-Za-z0-9_.+-]")

EXITED = "exited"
TERMINATED = "terminated"
NOT_STARTED = "not_started"
DUPLICATE = "duplicate"
OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True)
class JobContext:
    """Who runs here: the job's key, host, Slurm's job id and restart count ("" without Slurm)."""

    key: str
    hostname: str
    slurm_job_id: str
    restart_count: int
    started_at: float


@dataclass(frozen=True)
class Ending:
    """How it ended. ``exit_code`` is None when a signal ended the child or it never started.

    ``ended_on`` names the signal that asked the job to end: SIGUSR1 is the walltime warning.
    """

    outcome: str
    reason: str = ""
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    max_rss_kb: int = 0
    cpu_seconds: float = 0.0
    stderr_tail: str = ""
    ended_on: Optional[str] = None


def current_context(key: str) -> JobContext:
    """Describe this start of the job from Slurm's environment."""
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    return JobContext(
        key=key,
        hostname=_NOT_OF_A_NAME.sub("?", node_name(os.environ))[:255],
        slurm_job_id=_NOT_OF_AN_ID.sub("_", _slurm_job_id())[:100],
        restart_count=int(restarts) if restarts.isdigit() else 0,
        started_at=time.time(),
    )


def node_name(environment: Mapping[str, str]) -> str:
    """Return Slurm's name of the node, by which users know it; without Slurm the host's.

    SLURMD_NODENAME is set in every job but those in an OCI bundle of 22.05. A bundle has a host
    name of its own.
    """
    listed = environment.get("SLURM_JOB_NODELIST", "")
    only = listed if re.match(r"[^\[\],]+$", listed) else None
    return environment.get("SLURMD_NODENAME") or only or socket.gethostname()


def _slurm_job_id() -> str:
    """Return the id by which Slurm's commands name this job: a task of an array is ``17_3``.

    SLURM_JOB_ID of a task is a number of its own, which changes nothing but confuses everybody.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return "%s_%s" % (array, task) if array and task else os.environ.get("SLURM_JOB_ID", "")


def start_record(context: JobContext) -> Dict[str, Any]:
    """Return the contents of ``start.json``."""
    return {
        "version": 1,
        "key": context.key,
        "hostname": context.hostname,
        "pid": os.getpid(),
        "slurm_job_id": context.slurm_job_id,
        "restart_count": context.restart_count,
        "started_at": context.started_at,
    }


def exit_record(context: JobContext, ending: Ending) -> Dict[str, Any]:
    """Return the contents of ``exit.json``."""
    reason = ending.reason.encode("utf-8", "replace").decode("utf-8")
    return {
        "version": 1,
        "key": context.key,
        "exit_code": ending.exit_code,
        "signal": ending.signal,
        "outcome": ending.outcome,
        "reason": reason,
        "started_at": context.started_at,
        "ended_at": time.time(),
        "hostname": context.hostname,
        "slurm_job_id": context.slurm_job_id,
        "restart_count": context.restart_count,
        "ended_on": ending.ended_on,
        "max_rss_kb": ending.max_rss_kb,
        "cpu_seconds": ending.cpu_seconds,
        "allocation": allocation(os.environ),
        "stderr_tail": ending.stderr_tail,
    }


def note(path: str, record: Dict[str, Any]) -> None:
    """Leave a record of a job of several, which goes on without it."""
    try:
        write_json(path, record)
    except OSError as error:
        log("cannot write %s: %s" % (os.path.basename(path), error))


def allocation(environment: Mapping[str, str]) -> Dict[str, Optional[int]]:
    """Return what Slurm gave the job, by the variables that it sets in every batch job (sbatch(1)).

    Memory in MiB; None where it was not said.
    """
    cpus = _cpus(environment.get("SLURM_JOB_CPUS_PER_NODE", ""))
    nodes = _integer(environment.get("SLURM_JOB_NUM_NODES"))
    per_node = _integer(environment.get("SLURM_MEM_PER_NODE"))
    per_cpu = _integer(environment.get("SLURM_MEM_PER_CPU"))
    memory = None
    if per_node and nodes:
        memory = per_node * nodes
    elif per_cpu and cpus:
        memory = per_cpu * cpus
    gpus = _integer(environment.get("SLURM_GPUS_ON_NODE"))
    return {"cpus": cpus, "nodes": nodes, "memory_mb": memory, "gpus": gpus}


def _cpus(text: str) -> Optional[int]:
    """Read ``4``, ``4(x2)`` and ``4(x2),2``: CPUs on each node."""
    total = 0
    for part in text.split(","):
        match = re.match(r"(\d+)(?:\(x(\d+)\))?$", part)
        if match is None:
            return None
        total += int(match.group(1)) * int(match.group(2) or 1)
    return total


def _integer(text: Optional[str]) -> Optional[int]:
    return int(text) if text is not None and text.isdigit() else None
