"""The pyslurm transport under test: with the real pyslurm, or with a stand-in for it.

The directory of the stand-in goes on the PYTHONPATH of the helper, not of the tests.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.slurm.cli import SlurmCli
from hpc_agent.slurm.commands import ProcessRunner
from hpc_agent.slurm.pyslurm_process import PyslurmProcess, mismatch
from hpc_agent.slurm.pyslurm_transport import PyslurmScheduler
from hpc_agent.slurm.rate import LimitedRunner, TokenBucket
from tests.cluster import SlurmCluster

_PATH = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class StandIn:
    """A stand-in that says it was built for the Slurm of a cluster."""

    directory: Path
    cluster: SlurmCluster

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of a helper that finds the stand-in, with its metadata and orders."""
        release = ".".join(self.cluster.version.split(".")[:2])
        write_metadata(self.directory, f"{release}.99")
        path = os.pathsep.join([str(_PATH), str(self.directory / "metadata")])
        orders = str(self.directory)
        return {**self.cluster.environment, "PYTHONPATH": path, "PYSLURM_STAND_IN": orders}

    def order(self, call: str, what: str) -> None:
        """Have the next call (``import``, ``submit``, …) do something."""
        (self.directory / call).write_text(what)


def write_metadata(directory: Path, release: str) -> None:
    """Have a release of pyslurm seem to be installed."""
    metadata = directory / "metadata" / "pyslurm-0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: pyslurm\nVersion: {release}\n"
    )


def pyslurm_scheduler(
    cluster: SlurmCluster, environment: Mapping[str, str], *, seconds: float = 60.0
) -> PyslurmScheduler:
    """Return the scheduler, hardly slowed by a rate limit; ``seconds`` is every deadline."""
    bucket = TokenBucket(burst=1000)
    cli = SlurmCli(LimitedRunner(ProcessRunner(cluster.environment), bucket))
    process = PyslurmProcess(environment=environment, slurm_version=cli.version)
    return PyslurmScheduler(
        cli, process, bucket, query_timeout_seconds=seconds, submit_timeout_seconds=seconds
    )


def why_no_pyslurm(version: str) -> str | None:
    """Say why the real pyslurm cannot be tested on this version of Slurm."""
    try:
        release = importlib.metadata.version("pyslurm")
    except importlib.metadata.PackageNotFoundError:
        release = None
    if mismatch(release, f"slurm {version}", python="python") is None:
        return None
    line = ".".join(version.split(".")[:2])
    found = f"it is {release}" if release else "PyPI has 25.11 only, the rest must be built"
    return f"pyslurm {line} for Slurm {version} is not installable here: {found}"
