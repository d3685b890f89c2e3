"""docs/retry-policies.md says what the code does."""

from __future__ import annotations

import pytest

from hpc_agent.config import Retries
from tests.e2e import test_out_of_memory, test_recovery
from tests.runs.policy_page import PAGE, SHOWN, render, rows_of


def test_page_is_what_the_code_decides() -> None:
    """Written anew when it is not; then it wants to be committed."""
    page = render()
    if not PAGE.exists() or PAGE.read_text() != page:
        PAGE.write_text(page)
        pytest.fail(f"{PAGE.name} was out of date and is written anew: commit it")


def test_page_credits_tests_that_can_fail() -> None:
    """What a row is shown by is a test of whole runs, and not one that may fail or is left out."""
    for name in SHOWN.values():
        test = getattr(test_recovery, name, None) or getattr(test_out_of_memory, name)
        marks = {mark.name for mark in getattr(test, "pytestmark", [])}
        assert marks & {"xfail", "skip", "skipif"} == set(), name


def test_page_has_every_policy() -> None:
    """A new one wants a row for each of its actions."""
    rows = rows_of(render())
    assert {row.split("`")[1] for row in rows} == set(Retries.model_fields)
    assert sum("(default)" in row for row in rows) == len(Retries.model_fields)
