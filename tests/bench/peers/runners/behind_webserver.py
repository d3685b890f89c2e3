"""Runs that are launched as a user does it: in the web UI's own GraphQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc_agent.demo.webserver import FINISHED, Webserver
from hpc_agent.errors import HpcAgentError
from tests.bench.peers.runners.runner import LOCATION, RUN_SECONDS, RunTimes, wait_for_ends

_RUNS = """
query ($ids: [String]) { runsOrError(filter: {runIds: $ids}, limit: 2000) { ... on Runs {
  results { runId status }
} } }
"""


class BehindWebserver:
    """Launches and waits; whatever executes the runs is somebody else's concern."""

    def __init__(
        self,
        name: str,
        webserver: Webserver,
        *,
        code_server: Path,
        accepted: Sequence[str],
        agent_pid: int | None = None,
        at_most: int | None = None,
    ) -> None:
        """By the first event with one of the words ``accepted`` the launch has arrived."""
        self.name = name
        self.at_most = at_most
        self.webserver = webserver
        self.code_server = code_server
        self.agent_pid = agent_pid
        self._accepted = accepted
        self._launched: dict[str, float] = {}

    def launch(self, job: str = "no_op", config: Mapping[str, Any] | None = None) -> str:
        """Launch a run, from any thread."""
        began = time.time()
        run_id = self.webserver.launch(LOCATION, job, config=config)
        self._launched[run_id] = began
        return run_id

    def ended(self, run_ids: Collection[str]) -> set[str]:
        """Return which of these have ended, by one question for all of them."""
        found = self.webserver.query(_RUNS, {"ids": sorted(run_ids)})["runsOrError"]["results"]
        ended = {run["runId"]: run["status"] for run in found if run["status"] in FINISHED}
        for run_id, status in ended.items():
            if status != "SUCCESS":
                raise HpcAgentError(f"{self.name}: run {run_id} ended {status}")
        return set(ended)

    def wait(self, run_ids: Sequence[str], *, seconds: float = RUN_SECONDS) -> list[RunTimes]:
        """Wait for the end of runs."""
        wait_for_ends(self, run_ids, seconds=seconds)
        return [self._times(run_id) for run_id in run_ids]

    def _times(self, run_id: str) -> RunTimes:
        events = self.webserver.events(run_id)
        return RunTimes(
            launched=self._launched[run_id],
            submitted=_first(events, self._says_accepted),
            first_event=_first(events, lambda event: event["__typename"] == "RunStartEvent"),
            finished=_first(events, lambda event: event["__typename"] == "RunSuccessEvent"),
        )

    def _says_accepted(self, event: Mapping[str, Any]) -> bool:
        message = event.get("message") or ""
        return any(words in message for words in self._accepted)


def _first(
    events: Sequence[Mapping[str, Any]], is_it: Callable[[Mapping[str, Any]], bool]
) -> float:
    for event in events:
        if is_it(event):
            return float(event["timestamp"]) / 1000
    raise HpcAgentError(f"an event is missing among {[event['__typename'] for event in events]}")
