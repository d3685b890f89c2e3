"""A worker's life: the transitions that the table has, and nobody writes a phase beside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

import hpc_agent
from hpc_agent.store import workers
from hpc_agent.store.phases import FINAL, LIVE, TRANSITIONS, Phase, TransitionError, move
from tests.store.test_store import a_run_worker
from tests.workers import put

PAIRS = [(before, after) for before, after in product(Phase, Phase) if before is not after]
POSSIBLE = [(before, after) for before, after in PAIRS if after in TRANSITIONS[before]]
IMPOSSIBLE = [pair for pair in PAIRS if pair not in POSSIBLE]
SOURCES = Path(hpc_agent.__file__).parent
# In any place before the condition.
WRITES_PHASE = re.compile(r"(?is)\s*UPDATE\s+workers\s+SET\b(?:(?!\bWHERE\b).)*\bphase\s*=")


def texts_of(path: Path) -> Iterator[str]:
    """Yield the texts in a source file; what is put into them counts as one word."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(getattr(part, "value", "")) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def words(pair: tuple[Phase, Phase]) -> str:
    return f"{pair[0].value} to {pair[1].value}"


@pytest.mark.parametrize("pair", POSSIBLE, ids=words)
def test_transition_of_the_table_is_possible(db: Database, pair: tuple[Phase, Phase]) -> None:
    """And it is told where the worker came from."""
    before, after = pair
    put(db, a_run_worker(phase=before))
    assert move(db, "run-1", after) is before
    assert workers.get(db, "run-1").phase is after


@pytest.mark.parametrize("pair", IMPOSSIBLE, ids=words)
def test_any_other_transition_is_an_error(db: Database, pair: tuple[Phase, Phase]) -> None:
    """Nothing is written, by whichever way it was tried."""
    before, after = pair
    put(db, a_run_worker(phase=before))
    with pytest.raises(TransitionError, match=f"{after.value} cannot follow {before.value}"):
        move(db, "run-1", after)
    with pytest.raises(TransitionError):
        workers.change(db, "run-1", now=1.0, source="test", phase=after)
    assert workers.get(db, "run-1").phase is before


@pytest.mark.parametrize("phase", Phase)
def test_phase_may_be_entered_again(db: Database, phase: Phase) -> None:
    """Two observers may see the same."""
    put(db, a_run_worker(phase=phase))
    assert move(db, "run-1", phase) is phase


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase.is_final])
def test_nothing_follows_an_end(phase: Phase) -> None:
    """One that is over stays over."""
    assert TRANSITIONS[phase] == frozenset()


def test_table_is_whole() -> None:
    """Each phase has its row, each can be reached, and from each live one there is a way out."""
    assert TRANSITIONS.keys() == set(Phase)
    reached = frozenset({Phase.INTENT}).union(*TRANSITIONS.values())
    assert reached == set(Phase)
    assert all(TRANSITIONS[phase] & FINAL for phase in LIVE)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.INTENT])
def test_no_life_begins_but_with_an_intent(db: Database, phase: Phase) -> None:
    """What was never an intent was never written down before it was done."""
    with pytest.raises(TransitionError, match=f"no life begins with {phase.value}"):
        workers.insert(db, a_run_worker(phase=phase))
    assert workers.find(db, "run-1") is None


def test_worker_that_is_not_there_has_no_phase(db: Database) -> None:
    """It may have been purged meanwhile."""
    with pytest.raises(KeyError):
        move(db, "run-1", Phase.ENDED)


def test_phase_is_no_change_like_others(db: Database) -> None:
    """What an observation changes beside the phase cannot hold a phase."""
    put(db, a_run_worker())
    changes: dict[str, Any] = {"phase": Phase.ENDED}
    with pytest.raises(TypeError, match="phase"):
        workers.change(db, "run-1", now=1.0, source="test", phase=None, **changes)


def test_no_other_module_writes_the_column() -> None:
    """A phase that is written elsewhere is a transition that nobody has thought of."""
    writers = {
        str(path.relative_to(SOURCES))
        for path in SOURCES.rglob("*.py")
        if any(WRITES_PHASE.match(text) for text in texts_of(path))
    }
    assert writers == {"store/phases.py"}


def test_rows_of_workers_are_changed_in_one_module() -> None:
    """Which keeps the phase out of what it changes there."""
    callers = {
        str(path.relative_to(SOURCES))
        for path in SOURCES.rglob("*.py")
        if re.search(r"rows\.(update|insert)\(\s*db,\s*[\"']workers[\"']", path.read_text())
    }
    assert callers == {"store/workers.py"}
