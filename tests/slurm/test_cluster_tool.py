"""The tool that starts and stops a cluster: repeatable, repairing, leaving nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster import NoClusterError, cluster_tool, start_cluster
from tests.slurm.waiting import until

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A cluster of its own, beside that of the other tests."""
    path = Path(tempfile.mkdtemp(prefix="hpc-slurm-"))
    try:
        start_cluster(path, accounting=False)
        yield path
    except NoClusterError as reason:
        pytest.skip(str(reason))
    finally:
        if (path / "cluster.json").exists():
            cluster_tool("down", directory=path)
        shutil.rmtree(path)


def test_nodes_in_namespaces_are_named_one_by_one(tmp_path: Path) -> None:
    """One that is left out would be where the controller is, and nobody would notice."""
    with pytest.raises(RuntimeError, match="2 nodes need as many --node-in"):
        cluster_tool("up", "--nodes", "2", "--node-in", "n1=10.0.0.1", directory=tmp_path)
    with pytest.raises(RuntimeError, match="give a network namespace and the address in it"):
        cluster_tool("up", "--node-in", "n1", directory=tmp_path)


def test_a_second_up_changes_nothing(directory: Path) -> None:
    """Same daemons, same answer."""
    before = cluster_tool("status", directory=directory)
    after = cluster_tool("up", directory=directory)
    assert after["daemons"] == before["daemons"]
    assert after["running"] is True
    assert after["nodes"] == ["c1", "c2"]
    assert set(after["node_states"]) == {"c1", "c2"}


def test_up_repairs_what_died(directory: Path) -> None:
    """Only the dead daemons get new pids."""
    before = cluster_tool("status", directory=directory)["daemons"]
    for name in ("slurmctld", "slurmd-c2"):
        os.kill(before[name], signal.SIGKILL)
    assert cluster_tool("status", directory=directory)["running"] is False
    after = cluster_tool("up", directory=directory)["daemons"]
    assert after["munged"] == before["munged"]
    assert after["slurmd-c1"] == before["slurmd-c1"]
    assert after["slurmctld"] != before["slurmctld"]
    assert after["slurmd-c2"] != before["slurmd-c2"]


def test_a_daemon_that_does_not_start_is_told_with_its_log(directory: Path) -> None:
    """Which daemon, and its own last words."""
    before = cluster_tool("status", directory=directory)["daemons"]
    os.kill(before["munged"], signal.SIGKILL)
    key = directory / "etc" / "munge.key"
    good = key.read_bytes()
    key.write_bytes(b"short")
    with pytest.raises(RuntimeError, match=r"munged ended while starting(.|\n)*[Kk]ey"):
        cluster_tool("up", directory=directory)
    key.write_bytes(good)
    assert cluster_tool("up", directory=directory)["running"] is True


def test_a_process_that_died_at_once_does_not_count_as_running(directory: Path) -> None:
    """Its record has no start time: another up must start it again."""
    record = directory / "run" / "munged.json"
    before = cluster_tool("status", directory=directory)["daemons"]
    os.kill(before["munged"], signal.SIGKILL)
    record.write_text(json.dumps({"pid": before["munged"], "identity": None}))
    assert cluster_tool("status", directory=directory)["daemons"]["munged"] is None
    assert cluster_tool("up", directory=directory)["running"] is True


async def test_down_leaves_no_process_and_no_socket(directory: Path, tmp_path: Path) -> None:
    """Neither daemons nor a job that ignores SIGTERM and has left its session."""
    status = cluster_tool("up", directory=directory)
    environment = {
        **os.environ,
        "SLURM_CONF": status["slurm_conf"],
        "PATH": f"{status['bin_dir']}{os.pathsep}{os.environ['PATH']}",
    }
    pids = tmp_path / "pids"
    script = tmp_path / "job.sh"
    script.write_text(
        f"#!/bin/bash\n#SBATCH --output=/dev/null\ntrap '' TERM\nsetsid sleep 300 &\n"
        f"echo $$ $! > {pids}\nwait\nsleep 300\n"
    )
    subprocess.run(["sbatch", str(script)], env=environment, check=True, capture_output=True)  # noqa: ASYNC221
    await until(lambda: pids.exists() and len(pids.read_text().split()) == 2, "the job's start")
    processes = [int(pid) for pid in pids.read_text().split()]
    processes += [pid for pid in status["daemons"].values() if pid is not None]
    cluster_tool("down", directory=directory)
    assert [pid for pid in processes if _lives(pid)] == []
    assert [path.name for path in (directory / "run").iterdir()] == []
    assert cluster_tool("status", directory=directory)["running"] is False
    assert cluster_tool("down", directory=directory)["running"] is False


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_down_works_without_a_working_controller(directory: Path) -> None:
    """With munged dead nobody answers: processes are ended all the same."""
    daemons = cluster_tool("up", directory=directory)["daemons"]
    os.kill(daemons["munged"], signal.SIGKILL)
    cluster_tool("down", directory=directory)
    assert [pid for pid in daemons.values() if _lives(pid)] == []
