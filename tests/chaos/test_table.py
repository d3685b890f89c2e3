"""The table counts what the ledgers say, and the page lists what the rig can do."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.chaos.bed import Bed
from tests.chaos.catalogue import FAULTS
from tests.chaos.fault import Fault, HasStruck, at_once
from tests.chaos.ledger import Finding, Problem
from tests.chaos.page import listed, page
from tests.chaos.round import Outcome
from tests.chaos.session import rounds_of
from tests.chaos.table import HEADINGS, Row, markdown, row_of, total

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


@contextlib.contextmanager
def nothing(_bed: Bed, _random: Random) -> Iterator[HasStruck]:
    """Inject nothing."""
    yield at_once


FAULT = Fault(name="nothing", group="none", text="nothing happens", inject=nothing)


def outcome(*problems: tuple[str, Finding], recoveries: tuple[float, ...] = (1.0,)) -> Outcome:
    """Return the outcome of a round of two runs."""
    found = [Problem(run_id=run_id, finding=finding, text="") for run_id, finding in problems]
    return Outcome(
        fault=FAULT, run_ids=["a", "b"], struck=True, problems=found, recoveries=recoveries
    )


def test_row_counts_runs_by_kind() -> None:
    """A run with two problems of a kind counts once, what is about no run for itself."""
    row = row_of(
        "nothing",
        [
            outcome(("a", Finding.EVENTS), ("a", Finding.OUTPUT), recoveries=(1.0, 4.0)),
            outcome(("c", Finding.LOST), ("", Finding.LEFT_OVER), ("", Finding.LEFT_OVER)),
            outcome(recoveries=(9.0,)),
        ],
    )

    assert dict(zip(HEADINGS, row.cells(), strict=True)) == {
        "fault": "nothing",
        "runs": "6",
        "lost": "1",
        "doubled": "0",
        "false ends": "0",
        "stuck": "0",
        "events or logs wrong": "1",
        "jobs left": "2",
        "idle jobs": "0",
        "recovery, median (s)": "4",
        "recovery, maximum (s)": "9",
    }
    assert not row.is_clean


@pytest.mark.parametrize("finding", Finding)
def test_every_finding_has_a_column(finding: Finding) -> None:
    """Nothing that is found is left out of the table."""
    assert not row_of("nothing", [outcome(("a", finding))]).is_clean


def test_row_can_be_written_and_read_again() -> None:
    """A long session that was broken off goes on where it was."""
    row = row_of("nothing", [outcome(("a", Finding.STUCK), recoveries=(1.0, 4.0))])

    assert Row.from_json(row.as_json()) == row


def test_last_row_adds_up() -> None:
    """Runs and problems of all faults."""
    rows = [row_of("one", [outcome(("a", Finding.STUCK))]), row_of("two", [outcome()])]

    assert total(rows).cells()[:6] == ["all", "4", "0", "0", "0", "1"]
    assert len(markdown(rows).splitlines()) == 4


def test_rounds_have_about_the_same_size() -> None:
    """All runs are played."""
    assert rounds_of(55, 12) == [11, 11, 11, 11, 11]
    assert rounds_of(11, 12) == [11]
    assert rounds_of(3, 8) == [3]


def test_names_of_faults_are_unique_and_short() -> None:
    """They are arguments of a command line and cells of a table."""
    names = [fault.name for fault in FAULTS]

    assert len(set(names)) == len(names)
    assert all(len(name) <= 32 and "|" not in name for name in names)


def test_some_faults_are_in_the_short_form_and_some_for_the_stock_agent() -> None:
    """The short form is what CI plays."""
    assert 5 <= sum(fault.short for fault in FAULTS) <= 12
    assert sum(fault.stock for fault in FAULTS) >= 10


def test_page_lists_the_faults_that_it_is_given() -> None:
    """What is written can be read again."""
    row = Row(name="nothing", runs=1, counts=[0] * 6, recoveries=[1.0])

    assert listed(page([FAULT], [row], [row], seed=1)) == ["nothing"]


def test_page_lists_the_faults_of_the_rig() -> None:
    """Whoever adds a fault runs `make chaos-full`, which writes the page."""
    missing = set(CLOCKS) - {fault.name for fault in FAULTS}  # where libfaketime is not installed

    assert [name for name in listed(PAGE.read_text()) if name not in missing] == [
        fault.name for fault in FAULTS
    ]


def test_page_has_a_row_for_each_fault_and_names_no_day() -> None:
    """What was not played is said as well."""
    text = PAGE.read_text()
    table = text.partition("## What was found\n")[2].partition("\n## ")[0]

    left_out = table.partition("Not played this time: ")[2]
    assert all(f"\n| {name} |" in table or name in left_out for name in listed(text))
    assert not re.search(r"\b20\d\d-\d\d", text)


CLOCKS = ("clock an hour ahead", "clock an hour back")
