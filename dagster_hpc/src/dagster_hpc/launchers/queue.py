"""What squeue says of all jobs of this user, those that have just ended included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dagster_hpc.jobs import JobStatus, Phase

# Of squeue(1): JobID, Name, State, NodeList, and the reason last, since it is free text.
_FORMAT = "%i|%j|%T|%N|%r"
_WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"})
_FINAL = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "LAUNCH_FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "RECONFIG_FAIL",
        "REVOKED",
        "TIMEOUT",
    ]
)


@dataclass(frozen=True)
class Entry:
    """One job in the queue."""

    job_id: str
    name: str
    state: str
    nodes: str
    reason: str

    @property
    def has_ended(self) -> bool:
        """Whether its state is final; COMPLETING is not, nor is one that is not known here."""
        return self.state in _FINAL

    def applied_to(self, status: JobStatus) -> JobStatus:
        """Return how a job stands that is still going."""
        is_waiting = self.state in _WAITING
        return replace(
            status,
            phase=Phase.QUEUED if is_waiting else Phase.RUNNING,
            state=self.state,
            reason=self.reason if is_waiting and self.reason != "None" else "",
            nodes="" if is_waiting else self.nodes,
        )


def look(output: Callable[[Sequence[str]], str]) -> list[Entry]:
    """Return the queue; ``output`` runs a command and returns what it prints."""
    return parse(output(["squeue", "--me", "--noheader", "--states=all", f"--format={_FORMAT}"]))


def parse(text: str) -> list[Entry]:
    """Read squeue's lines; what is none of them is passed over."""
    rows = [line.split("|", 4) for line in text.splitlines()]
    return [Entry(*(cell.strip() for cell in row)) for row in rows if len(row) == 5]
