"""The short form of `make chaos`: a few faults, each struck in the middle of a burst of runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.bed import Bed
from tests.chaos.catalogue import FAULTS
from tests.chaos.fault import Fault
from tests.chaos.session import Session, Teller
from tests.cluster import NoClusterError

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slurm,
    pytest.mark.e2e,
    pytest.mark.timeout(300),
]

RUNS = 4
# The longest first: several processes play them, and should end together.
SHORT = sorted((fault for fault in FAULTS if fault.short), key=lambda fault: -fault.hold_seconds)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """One control plane, agent and Slurm for all faults that a process plays.

    No run is executed again later: a late duplicate of any of them would be found at the end.
    """
    logs = tmp_path_factory.mktemp("chaos")
    try:
        opened = Session(Bed, seed=1, say=Teller(), logs=logs)
        with opened:
            yield opened
            opened.finish()
            assert [row.name for row in opened.rows() if not row.is_clean] == []
    except NoClusterError as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("fault", SHORT, ids=lambda fault: str(fault.name))
def test_runs_survive(session: Session, fault: Fault) -> None:
    """Every run is executed once, ends, and shows what was executed."""
    outcome = session.play(fault, runs=RUNS)

    assert outcome.struck
    assert outcome.problems == []
