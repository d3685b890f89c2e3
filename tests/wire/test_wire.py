"""Message by message, our agent says what the stock agent says."""

from __future__ import annotations

import difflib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.wire.messages import Messages, messages_of
from tests.wire.normalization import NORMALIZATIONS, normalized
from tests.wire.page import PAGE, render, rows_of
from tests.wire.running import record_our_agent, record_stock_agent
from tests.wire.work import requests

# The types come with dagster's own warnings.
pytestmark = pytest.mark.filterwarnings("ignore")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What each agent has sent."""

    stock: Messages
    ours: Messages


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Both agents at work, each on a control plane of its own: they wait more than they compute."""
    with ThreadPoolExecutor(2) as pool:
        stock, ours = pool.submit(record_stock_agent), pool.submit(record_our_agent)
        return Comparison(stock=messages_of(stock.result()), ours=messages_of(ours.result()))


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_our_messages_are_those_of_the_stock_agent(comparison: Comparison) -> None:
    """Equal but for what normalization.py lists with its reasons."""
    assert comparison.ours.keys() == comparison.stock.keys()
    differences = [
        f"{name}\n{_difference(comparison.stock[name], message)}"
        for name, message in comparison.ours.items()
        if message != comparison.stock[name]
    ]
    assert not differences, "\n\n".join(differences)


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_page_shows_what_was_compared(comparison: Comparison) -> None:
    """Written anew when it does not; then it wants to be committed."""
    page = render(comparison.stock, comparison.ours)
    committed = PAGE.read_text() if PAGE.exists() else ""
    if rows_of(committed) != rows_of(page):
        PAGE.write_text(page)
        pytest.fail(f"{PAGE.name} was out of date and is written anew: commit it")


def test_page_has_every_request_and_every_allowed_difference() -> None:
    """Also where nobody has the two minutes."""
    page = PAGE.read_text()
    assert {f"answer: {request['requestId']}" for request in requests()} <= rows_of(page)
    assert [
        each.what for each in NORMALIZATIONS if f"| {each.what} | {each.why} |" not in page
    ] == []
    assert "| differs |" not in page


def test_normalization_leaves_everything_else_alone() -> None:
    """A comparison that cannot fail would be worth nothing."""
    message = {
        "request_id": "0b0e0c9a-0000-0000-0000-000000000000",
        "timestamp": 1.0,
        "answer": '{"rows": 3, "path": "/tmp/x/y.sock"}',
    }
    assert normalized(message) == {
        "request_id": "ID",
        "timestamp": "TIME",
        "answer": {"rows": 3, "path": "/tmp/PATH"},
    }
    other = {**message, "answer": '{"rows": 4, "path": "/tmp/x/y.sock"}'}
    assert normalized(other) != normalized(message)


def _difference(stock: object, ours: object) -> str:
    before, after = (
        json.dumps(each, indent=1, sort_keys=True).splitlines() for each in (stock, ours)
    )
    return "\n".join(difflib.unified_diff(before, after, "stock", "ours", lineterm="", n=2))
