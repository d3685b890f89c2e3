"""Lines that strangers can cause."""

from __future__ import annotations

import logging

from hpc_agent.seldom import Seldom


def record(number: int, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("x", level, "", 0, "refused %d", (number,), None)


def test_few_of_many_alike_are_told_and_the_next_says_how_many_there_were() -> None:
    """By the minute."""
    now = 0.0
    seldom = Seldom(at_once=3, each_seconds=60, clock=lambda: now)
    assert [seldom.filter(record(n)) for n in range(6)] == [True] * 3 + [False] * 3
    now = 61.0
    later = record(6)
    assert seldom.filter(later)
    assert later.getMessage() == "refused 6 (3 more like it before)"
    assert seldom.filter(record(7))


def test_errors_are_always_told() -> None:
    """They are ours."""
    seldom = Seldom(at_once=1, clock=lambda: 0.0)
    assert all(seldom.filter(record(n, logging.ERROR)) for n in range(9))


def test_no_more_templates_are_remembered_than_there_are_reasons() -> None:
    """Whatever gets into one."""
    seldom = Seldom(clock=lambda: 0.0)
    for number in range(2000):
        seldom.filter(logging.LogRecord("x", 20, "", 0, f"refused {number}", (), None))
    assert len(seldom._told) <= 256
