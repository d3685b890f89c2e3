"""Which scheduler the demo runs on, and why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.errors import HpcAgentError

TOOL = Path(__file__).parent / "slurm" / "cluster"
_ANSWER_SECONDS = 15

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterChoice:
    """The scheduler that was taken; ``directory`` is that of a cluster of our own."""

    kind: str
    version: str
    found: str
    slurm_conf: Path | None = None
    directory: Path | None = None

    @property
    def is_shared(self) -> bool:
        """Whether jobs run on machines other than this one."""
        return self.kind == "slurm" and self.directory is None

    def close(self, say: Say) -> None:
        """Take down the cluster, when it is our own."""
        if self.directory is not None:
            say("Stopping Slurm")
            _tool("down", "--dir", str(self.directory))


def choose_cluster(wanted: str, directory: Path, say: Say) -> ClusterChoice:
    """Take an existing Slurm, else start one where that is possible, else the local scheduler.

    ``wanted`` is ``auto``, ``slurm`` or ``local``. Raises HpcAgentError when it cannot be had.
    """
    if wanted == "local":
        return _local("it was asked for")
    version = _existing()
    if version is not None:
        return ClusterChoice(
            kind="slurm", version=version, found="an existing cluster: sbatch and sinfo answer"
        )
    obstacle = _obstacle()
    if obstacle is None:
        say("Starting a Slurm cluster of two nodes on this machine (installs it when missing)")
        try:
            return _own(directory)
        except HpcAgentError as error:
            if wanted == "slurm":
                raise
            return _local(f"no cluster answers, and none could be started here: {error}")
    if wanted == "slurm":
        raise HpcAgentError(f"no Slurm answers, and none can be started here: {obstacle}")
    return _local(f"no Slurm answers, and none can be started here: {obstacle}")


def _existing() -> str | None:
    """Return the version of a Slurm that answers."""
    if shutil.which("sbatch") is None:
        return None
    try:
        version = subprocess.run(
            ["sbatch", "--version"],
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=True,
        )
        subprocess.run(["sinfo", "-h"], capture_output=True, timeout=_ANSWER_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return version.stdout.strip()


def _obstacle() -> str | None:
    """Say why no cluster can be started on this machine, None when it can."""
    if os.geteuid() != 0:
        return "that needs root"
    if shutil.which("apt-get") is None and shutil.which("slurmctld") is None:
        return "this is not Debian or Ubuntu, and Slurm is not installed"
    if not TOOL.exists():
        return "the tool slurm/cluster is not part of this installation"
    return None


def _own(directory: Path) -> ClusterChoice:
    started = json.loads(_tool("up", "--nodes", "2", "--dir", str(directory), "--json"))
    return ClusterChoice(
        kind="slurm",
        version=f"slurm {started['version']}",
        found=f"started by slurm/cluster on this machine, {len(started['nodes'])} nodes",
        slurm_conf=Path(started["slurm_conf"]),
        directory=directory,
    )


def _local(why: str) -> ClusterChoice:
    return ClusterChoice(kind="local", version="none", found=f"the local scheduler: {why}")


def _tool(*arguments: str) -> str:
    done = subprocess.run(
        ["python3", str(TOOL), *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise HpcAgentError(f"slurm/cluster {arguments[0]} failed (exit code {done.returncode})")
    return done.stdout
