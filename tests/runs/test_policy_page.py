"""docs/retry-policies.md says what the code does."""

from __future__ import annotations

import pytest

from hpc_agent.config import Retries
from tests.runs.policy_page import PAGE, render, rows_of


def test_page_is_what_the_code_decides() -> None:
    """Written anew when it is not; then it wants to be committed."""
    page = render()
    if not PAGE.exists() or PAGE.read_text() != page:
        PAGE.write_text(page)
        pytest.fail(f"{PAGE.name} was out of date and is written anew: commit it")


def test_page_has_every_policy() -> None:
    """A new one wants a row for each of its actions."""
    rows = rows_of(render())
    assert {row.split("`")[1] for row in rows} == set(Retries.model_fields)
    assert sum("(default)" in row for row in rows) == len(Retries.model_fields)
