"""Slots by CPUs and memory, and what a member is told of its own."""

from __future__ import annotations

import pytest

from hpc_agent.node.pool.capacity import shares, slot_environment, slots_of
from hpc_agent.node.spec import Slot


@pytest.mark.parametrize(
    ("slot", "environment", "slots"),
    [
        (Slot(1, None), {}, 8),
        (Slot(3, None), {}, 2),
        (Slot(16, None), {}, 1),
        (Slot(1, 2000), {}, 8),
        (Slot(1, 2000), {"SLURM_MEM_PER_NODE": "7000"}, 3),
        (Slot(2, 2000), {"SLURM_MEM_PER_CPU": "2000"}, 4),
        (Slot(1, 2000), {"SLURM_MEM_PER_NODE": "1000"}, 1),
        (Slot(1, 2000), {"SLURM_MEM_PER_NODE": "0"}, 8),
    ],
)
def test_slots_fit_in(slot: Slot, environment: dict[str, str], slots: int) -> None:
    """As many as CPUs and memory allow, and one in any case; --mem=0 is the whole node."""
    assert slots_of(slot, 8, environment) == slots


def test_shares_do_not_overlap() -> None:
    """Each slot has CPUs of its own, where there are as many."""
    assert shares([0, 2, 4, 6, 8], Slot(2, None), 2) == [(0, 2), (4, 6)]
    assert shares([0], Slot(2, None), 1) == []


def test_member_is_told_of_its_slot() -> None:
    """Not of the whole allocation; threads that somebody else has chosen stay."""
    told = {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "8", "OMP_NUM_THREADS": "8"}
    changed = slot_environment(told, Slot(2, 500))
    assert changed["OMP_NUM_THREADS"] == changed["SLURM_CPUS_PER_TASK"] == "2"
    assert changed["SLURM_MEM_PER_NODE"] == "500"
    assert "OMP_NUM_THREADS" not in slot_environment({**told, "OMP_NUM_THREADS": "1"}, Slot(2, 1))
    assert slot_environment({}, Slot(1, None)) == {}
