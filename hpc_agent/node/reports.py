"""The job's reports to the agent: started, ready, exited."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional

from .journal import log
from .records import JobContext
from .relay_client import NoAnswer, NotSent, RelayClient, Request

MAX_PAUSE_SECONDS = 15.0

# Waits that many seconds; True when the wait was interrupted and the report should be given up.
Pause = Callable[[float], bool]


@dataclass(frozen=True)
class Answer:
    """What the agent answered to a ``started``: whether to run, and whether to go on with a run."""

    proceed: bool
    reason: str = ""
    resume: bool = False


class ReportFailed(Exception):  # noqa: N818
    """The agent could not be told in the time given; the message says why."""


class Reporter:
    """Tells the agent what happens to this job, repeating each report until it is answered."""

    def __init__(self, client: RelayClient, token: str, context: JobContext) -> None:
        self._client = client
        self._token = token
        self._context = context

    def report(
        self, event: str, give_up_after: float, pause: Pause, exit: Optional[Dict[str, Any]] = None
    ) -> Answer:
        """Send one report, again with back-off for ``give_up_after`` seconds.

        Raises ReportFailed.
        """
        deadline = time.monotonic() + give_up_after
        wait = 0.2
        while True:
            try:
                return self._attempt(event, exit)
            except (NotSent, NoAnswer, ReportFailed) as error:
                remaining = deadline - time.monotonic()
                log("report %r was not accepted: %s" % (event, error))
                if remaining <= 0:
                    raise ReportFailed("no answer for %g s: %s" % (give_up_after, error)) from error
            if pause(min(wait, remaining)):
                raise ReportFailed("interrupted by a signal")
            wait = min(wait * 2, MAX_PAUSE_SECONDS)

    def _attempt(self, event: str, exit: Optional[Dict[str, Any]]) -> Answer:
        body = {
            "event": event,
            "hostname": self._context.hostname,
            "slurm_job_id": self._context.slurm_job_id,
            "restart_count": self._context.restart_count,
            "pid": os.getpid(),
            "exit": exit,
        }
        headers = {"Dagster-Cloud-Api-Token": self._token, "Content-Type": "application/json"}
        exchange = self._client.send(
            Request("POST", "/_hpc/report", headers, json.dumps(body).encode("utf-8"))
        )
        answer = exchange.read()
        if exchange.response.status != 200:
            text = answer[:300].decode("utf-8", "replace")
            raise ReportFailed("HTTP %d %s" % (exchange.response.status, text))
        document = json.loads(answer)
        return Answer(
            bool(document["proceed"]),
            str(document.get("reason") or ""),
            bool(document.get("resume")),
        )
