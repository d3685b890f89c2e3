"""The table of job states, row by row."""

from __future__ import annotations

import pytest

from hpc_agent.slurm.state import JobState

WAITING, ACTIVE, FINAL = "waiting", "active", "final"

# (long form, short form of squeue or None, what it means)
TABLE = [
    ("PENDING", "PD", WAITING),
    ("REQUEUED", "RQ", WAITING),
    ("REQUEUE_HOLD", "RH", WAITING),
    ("REQUEUE_FED", "RF", WAITING),
    ("SPECIAL_EXIT", "SE", WAITING),
    ("RESV_DEL_HOLD", "RD", WAITING),
    ("CONFIGURING", "CF", ACTIVE),
    ("RUNNING", "R", ACTIVE),
    ("COMPLETING", "CG", ACTIVE),
    ("SUSPENDED", "S", ACTIVE),
    ("STOPPED", "ST", ACTIVE),
    ("SIGNALING", "SI", ACTIVE),
    ("STAGE_OUT", "SO", ACTIVE),
    ("RESIZING", "RS", ACTIVE),
    ("POWER_UP_NODE", None, ACTIVE),
    ("UPDATE_DB", None, ACTIVE),
    ("EXPEDITING", None, ACTIVE),
    ("COMPLETED", "CD", FINAL),
    ("FAILED", "F", FINAL),
    ("CANCELLED", "CA", FINAL),
    ("TIMEOUT", "TO", FINAL),
    ("OUT_OF_MEMORY", "OOM", FINAL),
    ("NODE_FAIL", "NF", FINAL),
    ("BOOT_FAIL", "BF", FINAL),
    ("DEADLINE", "DL", FINAL),
    ("PREEMPTED", "PR", FINAL),
    ("LAUNCH_FAILED", "LF", FINAL),
    ("RECONFIG_FAIL", None, FINAL),
    ("REVOKED", "RV", FINAL),
    ("UNKNOWN", None, ACTIVE),
]


@pytest.mark.parametrize(("name", "short", "kind"), TABLE)
def test_each_state_is_read_and_classified(name: str, short: str | None, kind: str) -> None:
    """Long and short form are the same state, which waits, is at work, or has ended."""
    state = JobState.parse(name)
    assert state.value == name
    assert state.is_final is (kind == FINAL)
    assert state.is_waiting is (kind == WAITING)
    if short is not None:
        assert JobState.parse(short) is state


def test_the_table_is_complete() -> None:
    """A new state needs its row."""
    assert {name for name, _, _ in TABLE} == {state.value for state in JobState}


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("CANCELLED by 1000", JobState.CANCELLED),
        ("CANCELLED+", JobState.CANCELLED),
        ("completed", JobState.COMPLETED),
        ("RUNNING,COMPLETING", JobState.RUNNING),
        ("", JobState.UNKNOWN),
        ("(null)", JobState.UNKNOWN),
        ("TELEPORTED", JobState.UNKNOWN),
    ],
)
def test_variants(text: str, state: JobState) -> None:
    """What sacct adds to a state; a state from the future is UNKNOWN, which is not an end."""
    assert JobState.parse(text) is state
    assert not JobState.UNKNOWN.is_final
