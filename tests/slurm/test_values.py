"""Single values as Slurm prints them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hpc_agent.slurm.values import (
    duration_or_none,
    parse_duration,
    parse_exit_code,
    parse_text,
    parse_time,
    parse_warning,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("5:00", 300),
        ("01:02:03", 3723),
        ("1-02:03:04", 93784),
        ("1-12", 129600),
        ("2-00:30", 174600),
        ("0:02", 2),
        ("00:00:01.500", 1),
        ("UNLIMITED", None),
        ("infinite", None),
        ("Partition_Limit", None),
        ("N/A", None),
        ("", None),
    ],
)
def test_durations(text: str, seconds: int | None) -> None:
    """All forms of sbatch(1), --time, and those without a limit."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "1:2:3:4", "-5", "5m"])
def test_other_durations_are_errors(text: str) -> None:
    """A strict reader raises, a lenient one says None."""
    with pytest.raises(ValueError, match="not a Slurm duration"):
        parse_duration(text)
    assert duration_or_none(text) is None


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1795504322", datetime(2026, 11, 24, 7, 12, 2, tzinfo=UTC)),
        ("2026-11-24T07:12:02", datetime(2026, 11, 24, 7, 12, 2, tzinfo=UTC)),
        ("Unknown", None),
        ("N/A", None),
        ("None", None),
        ("0", None),
        ("(null)", None),
        ("99999999999999999999", None),
        ("yesterday", None),
    ],
)
def test_times(text: str, time: datetime | None) -> None:
    """Epoch seconds, ISO in UTC, and all spellings of no time."""
    assert parse_time(text) == time


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3:0", (3, None)),
        ("0:9", (0, 9)),
        ("768", (3, None)),
        ("9", (0, 9)),
        ("137", (0, 9)),
        ("0", (0, None)),
        ("", (None, None)),
        ("N/A", (None, None)),
        ("3:x", (None, None)),
    ],
)
def test_exit_codes(text: str, expected: tuple[int | None, int | None]) -> None:
    """``code:signal``, and the raw wait status of squeue (137: killed by 9, core dumped)."""
    assert parse_exit_code(text) == expected


def test_absent_texts_are_empty() -> None:
    """Slurm's null is not a text."""
    assert [parse_text(text) for text in ("(null)", "None", "N/A", "x")] == ["", "", "", "x"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("B:USR1@600", 600),
        ("b:sigusr1", 60),
        ("BR:10@5", 5),
        ("USR1@30", 30),
        ("B:USR2@600", None),
        ("B:TERM@600", None),
        ("", None),
    ],
)
def test_warning_is_that_of_usr1(text: str, seconds: int | None) -> None:
    """Without seconds it comes a minute before the limit (sbatch(1), --signal)."""
    assert parse_warning(text) == seconds
