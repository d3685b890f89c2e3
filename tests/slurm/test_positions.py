"""Where in the queue a job is: read from squeue, and on a real Slurm with nice jobs."""

from __future__ import annotations

import asyncio

import pytest

from hpc_agent.errors import SchedulerUnreadableError
from hpc_agent.slurm.cli import SlurmCli
from hpc_agent.slurm.queue_position import Position, are_hidden, parse
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import FIELD, RECORD
from tests.slurm.conftest import WriteScript
from tests.slurm.waiting import until_final, until_state


def printed(*rows: tuple[str, ...], reason: str = "Priority") -> str:
    """Return what squeue prints of pending jobs: id, priority, partitions, and a reason."""
    header = ("JOBID", "PRIORITY", "PARTITION", "REASON")
    records = [header, *((*row, reason) for row in rows)]
    return "".join(f"{FIELD.join(record)}{RECORD}\n" for record in records)


def test_order_is_that_of_priority_then_of_age() -> None:
    """Each partition has a queue of its own."""
    text = printed(("9", "5", "a"), ("10", "7", "a"), ("8", "5", "a"), ("3", "1", "b"))
    assert parse(text, {"8", "9", "10", "3"}) == {
        "10": Position(1, 3, "a"),
        "8": Position(2, 3, "a"),
        "9": Position(3, 3, "a"),
        "3": Position(1, 1, "b"),
    }


def test_tasks_of_an_array_are_jobs() -> None:
    """They come in the order of their indices, which are numbers."""
    text = printed(("7_10", "5", "a"), ("7_9", "5", "a"), ("6", "5", "a"))
    assert parse(text, {"7_10"}) == {"7_10": Position(3, 3, "a")}


def test_held_job_has_no_place_and_takes_none() -> None:
    """Its priority is 0."""
    text = printed(("1", "0", "a"), ("2", "5", "a"))
    assert parse(text, {"1", "2"}) == {"2": Position(1, 1, "a")}


@pytest.mark.parametrize("reason", ["BeginTime", "Dependency", "QOSMaxJobsPerUserLimit", "odd"])
def test_job_that_does_not_wait_for_room_has_no_place_and_takes_none(reason: str) -> None:
    """It would not start if it were the first."""
    text = printed(("1", "9", "a"), reason=reason) + printed(("2", "5", "a"))
    assert parse(text, {"1", "2"}) == {"2": Position(1, 1, "a")}


def test_reason_may_go_into_details() -> None:
    """As that of nodes that are away does."""
    text = printed(("1", "9", "a"), reason="ReqNodeNotAvail, UnavailableNodes:c[1-2]")
    assert parse(text, {"1"}) == {"1": Position(1, 1, "a")}


def test_of_several_partitions_the_one_furthest_ahead_counts() -> None:
    """Whichever has room first starts the job."""
    text = printed(("1", "9", "a"), ("2", "5", "a,b"))
    assert parse(text, {"2"}) == {"2": Position(1, 1, "b")}


@pytest.mark.parametrize(
    "row",
    [
        ("1", "", "a"),
        ("1", "-5", "a"),
        ("1", "N/A", "a"),
        ("1", "\u0665", "a"),
        ("1", "9" * 5000, "a"),
        ("1_[3-9]", "5", "a"),
        ("$(id)", "5", "a"),
        ("9" * 5000, "5", "a"),
        ("1", "5", ""),
        ("1", "5", ","),
        ("1", "5", "a", "more"),
        ("1", "5"),
        (),
    ],
    ids=str,
)
def test_what_cannot_be_read_has_no_place(row: tuple[str, ...]) -> None:
    """And stops nobody: the next record is read."""
    assert parse(printed(row), {"1", "1_3"}) == {}
    assert parse(printed(row, ("2", "5", "b")), {"2"}) == {"2": Position(1, 1, "b")}


@pytest.mark.parametrize(
    "text", ["", "\n", "slurm_load_jobs error: Unable to contact slurm controller\n"]
)
def test_an_answer_that_is_none_is_an_error(text: str) -> None:
    """Nobody waits is something else."""
    with pytest.raises(SchedulerUnreadableError):
        parse(text, {"1"})


@pytest.mark.parametrize(
    ("line", "hidden"),
    [
        ("PrivateData             = none", False),
        ("PrivateData             = accounts,jobs,usage", True),
        ("PrivateData             = usage", False),
        ("Prolog                  = /PrivateData = jobs", False),
    ],
)
def test_site_may_hide_jobs_of_others(line: str, hidden: bool) -> None:
    """As scontrol shows its configuration."""
    config = f"ClusterName = c\n{line}\nProctrackType = x\nSLURM_VERSION = 22.05.8\n"
    assert are_hidden(config) is hidden


@pytest.mark.slurm
async def test_nice_jobs_wait_behind_others(slurm: SlurmCli, write_script: WriteScript) -> None:
    """What Slurm says of real jobs that wait for nodes; one that waits for its time is not told."""
    everything = ("--partition=batch", "--nodes=2", "--exclusive")
    scripts = {
        "nice": write_script("true", options=(*everything, "--nice=5000")),
        "plain": write_script("true", options=everything),
        "held": write_script("true", options=(*everything, "--hold")),
        "later": write_script("true", options=(*everything, "--begin=now+1hour")),
        "second": write_script("true", options=everything),
    }
    before = write_script("sleep 300", options=everything)
    ids = {"before": await slurm.submit(before, name="before", comment="before")}
    await until_state(slurm, ids["before"], JobState.RUNNING)
    ids |= {
        name: await slurm.submit(script, name=name, comment=name)
        for name, script in scripts.items()
    }
    try:
        while (await slurm.show(ids["later"])).reason != "BeginTime":  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        positions = await slurm.positions(ids.values())
        assert {ids[name] for name in ("held", "later", "before")} & set(positions) == set()
        plain, second, nice = (positions[ids[name]] for name in ("plain", "second", "nice"))
        assert plain.number < second.number < nice.number <= nice.among
        assert {position.partition for position in positions.values()} == {"batch"}
    finally:
        await asyncio.gather(*(slurm.cancel(job_id) for job_id in ids.values()))
        for job_id in ids.values():
            await until_final(slurm, job_id)
