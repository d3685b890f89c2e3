"""The claim decides which of several starts of a job runs it."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from hpc_agent.node.claim import ClaimRefused, claim
from hpc_agent.node.records import JobContext
from tests.no_links import is_supported, run_without_links


def context(job_id: str = "17", restart: int = 0, started_at: float = 0.0) -> JobContext:
    return JobContext(
        key="run-1",
        hostname="c1",
        slurm_job_id=job_id,
        restart_count=restart,
        started_at=started_at,
    )


def test_of_many_starts_one_gets_the_claim(tmp_path: Path) -> None:
    """Twenty simultaneous starts: one claim."""
    claimed: list[int] = []
    barrier = threading.Barrier(20)

    def start(number: int) -> None:
        barrier.wait()
        try:
            claim(str(tmp_path), context(str(number)))
        except ClaimRefused:
            return
        claimed.append(number)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 1


def test_a_restart_by_slurm_takes_the_claim_over_once(tmp_path: Path) -> None:
    """Its earlier start is dead; of two starts with one count, one is not Slurm's."""
    claim(str(tmp_path), context())
    claim(str(tmp_path), context(restart=1))
    with pytest.raises(ClaimRefused):
        claim(str(tmp_path), context(restart=1, started_at=1.0))


def test_a_restart_drops_the_records_of_the_earlier_start(tmp_path: Path) -> None:
    """A preempted job left its exit record: it does not speak for the new start."""
    claim(str(tmp_path), context())
    for name in ("start.json", "exit.json"):
        (tmp_path / name).write_text("{}")
    claim(str(tmp_path), context(restart=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["claim"]


@pytest.mark.parametrize("job_id", ["18", ""])
def test_another_job_may_not_take_a_claim_over(tmp_path: Path, job_id: str) -> None:
    """Only Slurm's own restart may; without Slurm nothing may."""
    claim(str(tmp_path), context(job_id="" if job_id == "" else "17"))
    with pytest.raises(ClaimRefused, match="already claimed"):
        claim(str(tmp_path), context(job_id=job_id, restart=1))


def test_a_claim_that_is_just_being_written_is_respected(tmp_path: Path) -> None:
    """An empty claim belongs to somebody, who writes the rest."""
    path = tmp_path / "claim"
    path.touch()
    writing = threading.Timer(0.3, lambda: claim_of("17", path))
    writing.start()
    with pytest.raises(ClaimRefused, match="already claimed by Slurm job 17"):
        claim(str(tmp_path), context("18"))
    writing.join()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"slurm_job_id": 3}', "[" * 60_000])
def test_a_claim_that_stays_nonsense_is_taken_over_by_one(tmp_path: Path, content: str) -> None:
    """Its claimant died while it claimed: without this, every later start would be a duplicate."""
    (tmp_path / "claim").write_text(content)
    claimed: list[str] = []

    def start(job_id: str) -> None:
        try:
            claim(str(tmp_path), context(job_id), half_claim_seconds=0.2)
        except ClaimRefused:
            return
        claimed.append(job_id)

    threads = [threading.Thread(target=start, args=(str(number),)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 1
    assert json.loads((tmp_path / "claim").read_text())["slurm_job_id"] == claimed[0]
    with pytest.raises(ClaimRefused, match="already claimed by"):
        claim(str(tmp_path), context("99"))


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_what_took_the_place_of_a_claim_is_not_followed(tmp_path: Path, kind: str) -> None:
    """User code of an earlier start made it: the restart neither waits for ever nor believes it."""
    other = tmp_path / "other"
    claim_of("17", other)
    job_dir = tmp_path / "job"
    job_dir.mkdir()
    if kind == "fifo":
        os.mkfifo(job_dir / "claim")
    else:
        (job_dir / "claim").symlink_to(other)
    before = other.read_text()
    claim(str(job_dir), context(restart=1), half_claim_seconds=0.1)
    assert json.loads((job_dir / "claim").read_text())["restart_count"] == 1
    assert other.read_text() == before


def test_claim_can_be_made_again_after_the_disk_refused_its_end(tmp_path: Path) -> None:
    """A start is no duplicate of itself."""
    for _ in range(2):
        claim(str(tmp_path), context())


def test_the_refused_start_learns_who_has_the_claim(tmp_path: Path) -> None:
    """It tells the agent."""
    claim(str(tmp_path), context())
    with pytest.raises(ClaimRefused) as refused:
        claim(str(tmp_path), context("18"))
    assert refused.value.claimed_by is not None
    assert refused.value.claimed_by["slurm_job_id"] == "17"


CLAIMING = """
import sys, threading
from hpc_agent.node.claim import ClaimRefused, claim
from hpc_agent.node.records import JobContext

claimed = []
barrier = threading.Barrier(10)

def start(number):
    context = JobContext(
        key="run-1", hostname="c1", slurm_job_id=str(number), restart_count=0, started_at=0.0
    )
    barrier.wait()
    try:
        claim(sys.argv[1], context)
    except ClaimRefused:
        return
    claimed.append(number)

threads = [threading.Thread(target=start, args=(number,)) for number in range(10)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*claimed)
"""


@pytest.mark.skipif(not is_supported(), reason="link(2) cannot be refused on this machine")
def test_where_links_are_refused_one_start_gets_the_claim_as_well(tmp_path: Path) -> None:
    """It is made with O_EXCL there, and nobody takes one that is being written for broken."""
    (claimed,) = run_without_links(CLAIMING, str(tmp_path)).split()
    assert json.loads((tmp_path / "claim").read_text())["slurm_job_id"] == claimed
    assert [path.name for path in tmp_path.iterdir()] == ["claim"]


def claim_of(job_id: str, path: Path) -> None:
    """Write a claim."""
    path.write_text(json.dumps({"slurm_job_id": job_id, "restart_count": 0, "hostname": "c1"}))
