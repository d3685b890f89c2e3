"""When jobs that are alike go, and how many at once."""

from __future__ import annotations

import pytest

from hpc_agent.jobs.bursts import AT_ONCE, GATHER_SECONDS, STREAM_GATHER_SECONDS, Bursts
from hpc_agent.store.submissions import Alike

NOW = 0.0
LARGEST = 1001


def wait(
    bursts: Bursts, count: int, *, age: float = 0.0, on_their_way: int = 0, coming: bool = False
) -> float | None:
    due = Alike("x", count, NOW - age)
    # Long enough ago to be no stream, and not so long that the others take them for hung.
    tickets = [bursts.begun("x", NOW - 3.0) for _ in range(on_their_way)]
    try:
        return bursts.wait(due, more_coming=coming, largest=LARGEST, now=NOW)
    finally:
        for ticket in tickets:
            bursts.ended("x", ticket)


def test_job_that_is_alone_goes_at_once() -> None:
    """Nothing is added to the latency of a single run."""
    assert wait(Bursts(), 1) == 0.0


@pytest.mark.parametrize(("count", "on_their_way"), [(2, 0), (1, 1), (50, 3)])
def test_burst_gathers_for_a_moment(count: int, on_their_way: int) -> None:
    """Counted from its oldest job."""
    assert wait(Bursts(), count, on_their_way=on_their_way) == GATHER_SECONDS
    assert wait(Bursts(), count, on_their_way=on_their_way, age=GATHER_SECONDS) == 0.0


def test_job_whose_like_may_be_coming_waits_a_moment() -> None:
    """Of launches that are received together the first need not be alone."""
    assert wait(Bursts(), 1, coming=True) == GATHER_SECONDS
    assert wait(Bursts(), 1, coming=True, age=GATHER_SECONDS) == 0.0


def test_jobs_that_come_one_after_the_other_gather_from_the_third_on() -> None:
    """Dagster's queue launches its runs a few a second: each would be a submission of its own."""
    bursts = Bursts()
    for age in (0.4, 0.2):
        assert wait(bursts, 1) == 0.0
        bursts.ended("x", bursts.begun("x", NOW - age))
    assert wait(bursts, 1) == STREAM_GATHER_SECONDS
    assert wait(bursts, 4, age=STREAM_GATHER_SECONDS) == 0.0
    assert wait(bursts, LARGEST) == 0.0


def test_job_after_a_pause_is_alone_again() -> None:
    """Two runs now and one later are no stream."""
    bursts = Bursts()
    for age in (2.5, 0.1):
        bursts.ended("x", bursts.begun("x", NOW - age))
    assert wait(bursts, 1) == 0.0


def test_full_array_does_not_wait() -> None:
    """More could not be in it."""
    assert wait(Bursts(), LARGEST) == 0.0


def test_jobs_gather_while_many_are_on_their_way() -> None:
    """The slower sbatch is, the larger the arrays get."""
    assert wait(Bursts(), 1, age=9.0, on_their_way=AT_ONCE) is None


def test_hung_sbatch_delays_nothing_like_it() -> None:
    """Nor where a limit was seen before, and one probe at a time is enough."""
    bursts = Bursts()
    bursts.limited("x", 1)
    bursts.begun("x", NOW - 60.0)
    assert wait(bursts, 1) == 0.0


def test_what_is_held_waits_and_nothing_else_does() -> None:
    """The scheduler takes none of a likeness for a while."""
    bursts = Bursts()
    bursts.hold("x", NOW + 10.0)
    assert wait(bursts, 5, age=60.0) == 10.0
    assert bursts.wait(Alike("y", 1, NOW), more_coming=False, largest=1, now=NOW) == 0.0


def test_likenesses_of_long_ago_are_forgotten() -> None:
    """They are as many as there are kinds of runs."""
    bursts = Bursts()
    for number in range(100):
        bursts.limited(f"likeness {number}", 8)
    assert bursts.size("likeness 1", LARGEST) == 4
    bursts.forget_old(NOW + 25 * 3600)
    assert bursts.size("likeness 1", LARGEST) == LARGEST


def test_submit_limit_halves_and_success_doubles() -> None:
    """Under a limit one probe at a time is enough."""
    bursts = Bursts()
    sizes = []
    for _ in range(12):
        sizes.append(bursts.size("x", LARGEST))
        bursts.limited("x", sizes[-1])
    assert sizes == [1001, 500, 250, 125, 62, 31, 15, 7, 3, 1, 1, 1]
    assert wait(bursts, 9, age=9.0, on_their_way=1) is None
    grown = []
    for _ in range(11):
        grown.append(bursts.size("x", LARGEST))
        bursts.accepted("x", grown[-1])
    assert grown == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1001]
    assert bursts.size("y", LARGEST) == LARGEST


def test_refused_array_is_tried_as_a_single_job() -> None:
    """When that is taken, it was the array that was not wanted."""
    bursts = Bursts()
    bursts.array_refused("x", "no arrays here")
    assert bursts.size("x", LARGEST) == 1
    assert wait(bursts, 9, on_their_way=1) is None
    bursts.accepted("x", 1)
    assert bursts.size("x", LARGEST) == 1
    assert wait(bursts, 9, on_their_way=1) == 0.0


def test_refusal_of_array_and_job_in_the_same_words_is_of_all() -> None:
    """The next burst of this likeness may be an array again: the site may have changed its mind."""
    bursts = Bursts()
    bursts.array_refused("x", "invalid account")
    assert bursts.job_refused("x", "invalid account")
    assert bursts.size("x", LARGEST) == LARGEST


@pytest.mark.parametrize("said_to_array", [None, "no arrays here"])
def test_refusal_of_one_job_is_its_own(said_to_array: str | None) -> None:
    """Other words are another reason."""
    bursts = Bursts()
    if said_to_array is not None:
        bursts.array_refused("x", said_to_array)
    assert not bursts.job_refused("x", "invalid account")
    assert bursts.size("x", LARGEST) == (LARGEST if said_to_array is None else 1)
