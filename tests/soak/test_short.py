"""`make soak` in short: enough to see a leak of one connection in a few."""

from __future__ import annotations

import pytest

from tests.soak.__main__ import main


@pytest.mark.timeout(240)
def test_nothing_grows_under_attack() -> None:
    """Descriptors, threads, memory and disk of relay, gateway and node program."""
    assert main(["--rounds", "2", "--size", "100", "--seconds", "5"]) == 0
