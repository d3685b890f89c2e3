"""The page of transports and versions says what the tests did."""

from __future__ import annotations

from tests.slurm.matrix import PAGE, TRANSPORTS, VERSIONS, render

CONTRACT = "tests/slurm/test_scheduler_contract.py::"


def _note(test: str, outcome: str, reason: str = "") -> dict[str, str]:
    return {"test": test, "outcome": outcome, "reason": reason}


def test_cells_count_what_passed_failed_and_was_skipped() -> None:
    """By the fixture's first word; tests of other files do not count."""
    notes = [
        _note(f"{CONTRACT}test_a[slurm]", "passed"),
        _note(f"{CONTRACT}test_b[slurm-1]", "passed"),
        _note(f"{CONTRACT}test_a[ssh]", "passed"),
        _note(f"{CONTRACT}test_b[ssh]", "failed"),
        _note(f"{CONTRACT}test_a[pyslurm]", "skipped", "Skipped: no pyslurm here"),
        _note("tests/slurm/test_faults.py::test_a[local]", "passed"),
    ]
    page = render({"24.11": notes})
    assert "| transport | 24.11 |" in page
    assert "| `cli` | 2 passed |" in page
    assert "| `ssh` | 1 passed, **1 failed** |" in page
    assert "| `pyslurm` | no pyslurm here |" in page
    assert "| `local` | no contract test yet |" in page


def test_the_page_has_every_version_and_transport_and_no_failure() -> None:
    """Else `make slurm-versions` wants to be run, and its page committed."""
    page = PAGE.read_text()
    assert f"| transport | {' | '.join(VERSIONS)} |" in page
    assert [name for name in TRANSPORTS if f"| `{name}` |" not in page] == []
    assert "failed" not in page
