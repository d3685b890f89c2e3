"""What every runner can do, and the moments of a run that are looked at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.webserver import Webserver
from tests.bench.peers.extent import Extent
from tests.cluster import SlurmCluster

LOCATION = "peers"
CODE = Path(__file__).parent.parent / "no_op.py"
RUN_SECONDS = 300.0
# Of processes that nothing makes wait: 315 of them have taken 24 GB.
PROCESSES_AT_MOST = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTimes:
    """Unix times: when the launch was called for, was accepted, RUN_START and RUN_SUCCESS."""

    launched: float
    submitted: float
    first_event: float
    finished: float


class Runner(Protocol):
    """Something that executes runs of the no-op location."""

    @property
    def name(self) -> str:
        """How it is called in tables."""

    def launch(self, job: str = "no_op", config: Mapping[str, Any] | None = None) -> str:
        """Launch a run, and return its id once the launch is acknowledged."""

    @property
    def at_most(self) -> int | None:
        """How many runs it may have at once; None where something before it makes them wait."""

    def ended(self, run_ids: Collection[str]) -> set[str]:
        """Return which of these have ended; raises HpcAgentError when one has failed."""

    def wait(self, run_ids: Sequence[str], *, seconds: float = RUN_SECONDS) -> list[RunTimes]:
        """Wait for the end of runs; raises HpcAgentError when one fails or takes longer."""


def wait_for_ends(runner: Runner, run_ids: Collection[str], *, seconds: float) -> None:
    """Wait for the end of runs, asking for those alone that are left; raises HpcAgentError."""
    left = set(run_ids)

    def look() -> bool:
        left.difference_update(runner.ended(left))
        return not left

    wait_for(f"{runner.name}: {len(run_ids)} runs do not end", look, seconds=seconds)


class Served(Runner, Protocol):
    """A runner behind a webserver, with a code server."""

    @property
    def webserver(self) -> Webserver:
        """What a user clicks on."""

    @property
    def code_server(self) -> Path:
        """The socket by which webserver and daemon reach user code."""

    @property
    def agent_pid(self) -> int | None:
        """The process that stands between control plane and runs, None without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a contestant runs: a directory of its own, and the cluster that all of them share."""

    directory: Path
    cluster: SlurmCluster
    extent: Extent
    say: Callable[[str], None]
