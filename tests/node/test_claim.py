"""The claim decides which of several starts of a job runs it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hpc_agent.node.claim import ClaimRefused, claim
from hpc_agent.node.records import JobContext


def context(job_id: str = "17", restart: int = 0) -> JobContext:
    return JobContext(
        key="run-1", hostname="c1", slurm_job_id=job_id, restart_count=restart, started_at=0.0
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
        claim(str(tmp_path), context(restart=1))


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
    """An empty claim belongs to somebody."""
    (tmp_path / "claim").touch()
    with pytest.raises(ClaimRefused, match="right now"):
        claim(str(tmp_path), context())
