"""A real Slurm for tests: the one that is here, or one started for this test run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

EXIT_NO_VERSION = 4
"""Of the cluster tool: that version of Slurm, or a wish of it, cannot be had here."""

CLUSTER_TOOL = Path(__file__).parent.parent / "slurm" / "cluster"

VERSION = os.environ.get("HPC_AGENT_TEST_SLURM", "")
"""Which version the tests want, for example ``24.11``; empty for whatever is here."""


class NoClusterError(Exception):
    """There is no Slurm here, and none can be started: the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmCluster:
    """A running cluster; ``environment`` is what its commands need on top of PATH and HOME.

    ``found`` is ``existing`` or ``started``; ``directory`` is None for an existing one. ``restd``
    is the URL of its slurmrestd, "" without one.
    """

    slurm_conf: str
    environment: Mapping[str, str]
    version: str
    found: str
    has_accounting: bool
    directory: Path | None = None
    restd: str = ""


def find_cluster(*, accounting: bool) -> SlurmCluster | None:
    """Return the cluster that Slurm's commands reach as they are, or None."""
    if VERSION:
        return None
    ping = _output("scontrol", "ping")
    if ping is None or "is UP" not in ping:
        return None
    config = _output("scontrol", "show", "config") or ""
    has_accounting = "accounting_storage/slurmdbd" in config
    if accounting and not has_accounting:
        return None
    kept = {name: os.environ[name] for name in ("SLURM_CONF", "PATH", "HOME") if name in os.environ}
    return SlurmCluster(
        slurm_conf=kept.get("SLURM_CONF", ""),
        environment=kept,
        version=(_output("sinfo", "--version") or "").split()[-1],
        found="existing",
        has_accounting=has_accounting,
    )


def start_cluster(
    directory: Path,
    *,
    accounting: bool,
    restd: bool = False,
    version: str = VERSION,
    oci_runtime: str = "",
    memory_limits: bool = False,
    conf_lines: Sequence[str] = (),
    controller_in: str = "",
    nodes_in: Sequence[str] = (),
) -> SlurmCluster:
    """Start a cluster of two nodes. Raises NoClusterError where that is not possible."""
    if os.geteuid() != 0:
        raise NoClusterError("no Slurm here, and starting one needs root")
    if not shutil.which("slurmctld", path="/usr/sbin:/sbin") and not shutil.which("apt-get"):
        raise NoClusterError("no Slurm here, and no apt-get to install it")
    options = [
        *(["--accounting"] if accounting else []),
        *(["--restd"] if restd else []),
        *(["--version", version] if version else []),
        *(["--oci-runtime", oci_runtime] if oci_runtime else []),
        *(["--memory-limits"] if memory_limits else []),
        *(word for line in conf_lines for word in ("--conf-line", line)),
        *(["--controller-in", controller_in] if controller_in else []),
        *(word for node in nodes_in for word in ("--node-in", node)),
    ]
    status = cluster_tool("up", "--nodes", "2", *options, directory=directory)
    environment = {
        "SLURM_CONF": status["slurm_conf"],
        "PATH": f"{status['bin_dir']}{os.pathsep}{os.environ['PATH']}",
        "HOME": os.environ.get("HOME", "/root"),
    }
    return SlurmCluster(
        slurm_conf=status["slurm_conf"],
        environment=environment,
        version=status["version"],
        found="started",
        has_accounting=status["accounting"],
        directory=directory,
        restd=status["restd"],
    )


@contextmanager
def own_cluster(*, accounting: bool = False, **wishes: Any) -> Iterator[SlurmCluster]:
    """Start a cluster as ``start_cluster`` does, and take it down again.

    Skips the test, with the reason, where there can be none.
    """
    # Not below pytest's tmp_path: a unix socket's path may have 108 characters.
    directory = Path(tempfile.mkdtemp(prefix="hpc-slurm-"))
    try:
        yield start_cluster(directory, accounting=accounting, **wishes)
    except NoClusterError as reason:
        pytest.skip(str(reason))
    finally:
        if (directory / "cluster.json").exists():
            cluster_tool("down", directory=directory)
        shutil.rmtree(directory, ignore_errors=True)


def cluster_tool(command: str, *options: str, directory: Path) -> dict[str, Any]:
    """Run ``slurm/cluster`` with the system's Python and return what it prints as JSON.

    Raises NoClusterError when there is no such version of Slurm here.
    """
    python = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin") or "python3"
    done = subprocess.run(
        [python, str(CLUSTER_TOOL), command, "--dir", str(directory), "--json", *options],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode == EXIT_NO_VERSION:
        raise NoClusterError(done.stderr.strip())
    if done.returncode not in {0, 3}:
        raise RuntimeError(f"slurm/cluster {command} failed:\n{done.stderr}")
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def _output(*argv: str) -> str | None:
    if shutil.which(argv[0]) is None:
        return None
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None
