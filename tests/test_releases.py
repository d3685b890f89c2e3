"""Which releases of dagster and dagster-cloud fit, and the command that mends those that do not."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from hpc_agent.releases import Pair, installed_in, pair_of


@pytest.mark.parametrize(
    ("pair", "trouble", "remedy"),
    [
        (Pair("1.13.1", "1.13.1"), None, ""),
        (
            Pair("1.14.0", "1.13.1"),
            "dagster 1.14.0 with dagster-cloud 1.13.1, which is made for dagster 1.13.1",
            "p -m pip install dagster-cloud==1.13.1 dagster==1.13.1",
        ),
        (
            Pair("1.13.1", None),
            "dagster-cloud is not installed",
            'p -m pip install "dagster-cloud>=1.13"',
        ),
        (
            Pair(None, "1.13.1"),
            "dagster is not installed",
            "p -m pip install dagster-cloud==1.13.1 dagster==1.13.1",
        ),
    ],
)
def test_pair_that_does_not_fit_has_a_remedy(pair: Pair, trouble: str | None, remedy: str) -> None:
    """One command, with both numbers where pip would choose others."""
    assert pair.trouble == trouble
    assert pair.fits == (trouble is None)
    assert pair.fits or pair.remedy("p") == remedy


def test_python_of_this_machine_is_asked(tmp_path: Path) -> None:
    """By its metadata; what is no Python, or has none of both, teaches nothing."""
    release = version("dagster")
    assert installed_in(Path(sys.executable)) == Pair(release, version("dagster-cloud"))
    assert installed_in(tmp_path / "python") is None
    strange = tmp_path / "strange"
    strange.write_text("#!/bin/sh\necho hello\n")
    strange.chmod(0o755)
    assert installed_in(strange) is None


def test_words_of_a_probe_job_are_read() -> None:
    """What else it may say is no pair."""
    assert pair_of("dagster 1.14.0, dagster-cloud 1.13.1") == Pair("1.14.0", "1.13.1")
    assert pair_of("dagster 1.14.0") is None
    assert pair_of("") is None
