"""The node program on a disk that is full: it waits for a while, and its end is always told."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disks import Disk, mounted_disk

from .harness import Cluster, python, until

FILL = """
import os, sys
try:
    with open(os.path.join({directory!r}, ".ballast"), "ab", buffering=0) as ballast:
        while True:
            ballast.write(b"x" * 4096)
except OSError:
    pass
sys.exit({code})
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """The disk that the job directories are on."""
    with mounted_disk(tmp_path / "work" / "jobs") as mounted:
        yield mounted


async def test_a_disk_that_is_full_at_the_start_is_waited_for(disk: Disk, cluster: Cluster) -> None:
    """Nothing is half done: it claims, reports and runs once there is room."""
    job = cluster.job(argv=["echo", "ran"], relay_timeout_seconds=60)
    output = cluster.directory(job.key) / "slurm.out"
    output.write_text("\n" * 10)  # its block is there, so that the node program can say something
    disk.fill()
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: "cannot claim the job" in node.log())
        assert not (node.job_dir / "claim").exists()
        disk.free()
        assert await node.wait() == 0
    assert cluster.jobs.events(job.key) == ["started", "exited"]
    assert node.child_output() == "ran\n"
    assert node.exit_record()["exit_code"] == 0
    assert "Traceback" not in node.log()


async def test_a_disk_that_stays_full_is_told_through_the_relay(
    disk: Disk, cluster: Cluster
) -> None:
    """The exit code says failure, and the agent is told the words."""
    job = cluster.job(argv=["touch", str(cluster.root / "ran")], relay_timeout_seconds=1)
    (cluster.directory(job.key) / "slurm.out").touch()
    disk.fill()
    async with cluster.relay():
        node = await cluster.start(job)
        assert await node.wait() == 75
    ((_, report),) = cluster.jobs.reports
    assert report.exit is not None
    assert (report.event, report.exit["outcome"]) == ("exited", "not_started")
    assert "cannot claim the job: [Errno 28] No space left on device" in report.exit["reason"]
    assert not (cluster.root / "ran").exists()


@pytest.mark.parametrize("code", [0, 3])
async def test_a_disk_that_the_run_has_filled_hides_no_end(
    disk: Disk, cluster: Cluster, code: int
) -> None:
    """The report says it; the exit code is the child's."""
    job = cluster.job()
    directory = cluster.directory(job.key)
    spec = json.loads((directory / "spec.json").read_text())
    spec["argv"] = python(FILL.format(directory=str(disk.path), code=code))
    (directory / "spec.json").write_text(json.dumps(spec))
    async with cluster.relay():
        node = await cluster.start(job)
        assert await node.wait() == code
    assert cluster.jobs.events(job.key) == ["started", "exited"]
    told = cluster.jobs.reports[-1][1].exit
    assert told is not None
    assert (told["outcome"], told["exit_code"]) == ("exited", code)
    assert not (node.job_dir / "exit.json").exists()
    assert list(node.job_dir.glob("*.tmp")) == []
    assert "Traceback" not in node.log()


async def test_an_end_that_nobody_could_be_told_is_written_once_there_is_room(
    disk: Disk, cluster: Cluster
) -> None:
    """The relay is away and the disk is full: one of the two comes back."""
    job = cluster.job(argv=python("import time; time.sleep(600)"))
    (cluster.directory(job.key) / "slurm.out").write_text("\n" * 10)
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: "started python" in node.log())
    disk.fill()
    node.process.terminate()
    await until(lambda: "cannot write exit.json" in node.log())
    disk.free()
    assert await node.wait() == 128 + 15
    assert node.exit_record()["outcome"] == "terminated"


async def test_user_code_that_replaced_its_own_files_keeps_no_node(cluster: Cluster) -> None:
    """A FIFO in the place of stderr: its tail would be waited for for ever, and the end with it."""
    code = "import os; os.unlink('stderr'); os.mkfifo('stderr')"
    job = cluster.job()
    directory = cluster.directory(job.key)
    spec = json.loads((directory / "spec.json").read_text())
    spec |= {"argv": python(code), "working_directory": str(directory)}
    (directory / "spec.json").write_text(json.dumps(spec))
    async with cluster.relay():
        node = await cluster.start(job)
        assert await node.wait(20) == 0
        again = await cluster.start(job, environment={"SLURM_RESTART_COUNT": "1"})
        assert await again.wait(20) == 0
    assert cluster.jobs.events(job.key) == ["started", "exited"] * 2


async def test_a_name_that_is_no_text_is_reported_as_one(cluster: Cluster) -> None:
    """The agent takes no other report, and a run would wait for its answer in vain."""
    job = cluster.job(argv=["true"], relay_timeout_seconds=5)
    name = os.fsdecode(b"node\xff\x1b[2J")
    async with cluster.relay():
        node = await cluster.start(job, environment={"SLURMD_NODENAME": name})
        async with asyncio.timeout(30):
            assert await node.wait() == 0
    assert {report.hostname for _, report in cluster.jobs.reports} == {"node??[2J"}
