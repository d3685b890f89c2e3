"""What becomes of a worker and of one of its jobs: what every observation comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of a worker, and of one of its jobs.

    ``job_id`` names that job, which is added where it is not known; ``is_current`` makes it the one
    that counts, ``is_claim`` the one that holds the claim.
    """

    phase: Phase | None = None
    worker: Mapping[str, Any] = field(default_factory=dict)
    job_id: str | None = None
    job: Mapping[str, Any] = field(default_factory=dict)
    is_current: bool = False
    is_claim: bool = False


NOTHING = Change()

# A job that runs is in no queue.
NO_POSITION: Mapping[str, Any] = {
    "position": None,
    "position_among": None,
    "position_partition": "",
}


def differing(record: Worker | Job, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the changes that are any."""
    return {name: value for name, value in changes.items() if getattr(record, name) != value}
