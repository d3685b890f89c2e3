"""The job's reports to the agent: started, ready, exited."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict

from .job_files import parsed
from .journal import log
from .records import JobContext
from .relay_client import NoAnswer, NotSent, RelayClient, Request

MAX_PAUSE_SECONDS = 15.0
LARGEST_ANSWER = 64 << 10
_LONGEST_REASON = 2000

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

    def report(self, event: str, give_up_after: float, pause: Pause, **more: Any) -> Answer:
        """Send one report, again with back-off for ``give_up_after`` seconds.

        ``more``: ``exit``, the exit record, or ``claimed_by``, the claim that a duplicate found.
        Raises ReportFailed.
        """
        deadline = time.monotonic() + give_up_after
        wait = 0.2
        while True:
            try:
                return self._attempt(event, more)
            except (NotSent, NoAnswer, ReportFailed) as error:
                remaining = deadline - time.monotonic()
                log("report %r was not accepted: %s" % (event, error))
                if remaining <= 0:
                    raise ReportFailed("no answer for %g s: %s" % (give_up_after, error)) from error
            if pause(min(wait, remaining)):
                raise ReportFailed("interrupted by a signal")
            wait = min(wait * 2, MAX_PAUSE_SECONDS)

    def _attempt(self, event: str, more: Dict[str, Any]) -> Answer:
        body = {
            "event": event,
            "hostname": self._context.hostname,
            "slurm_job_id": self._context.slurm_job_id,
            "restart_count": self._context.restart_count,
            "pid": os.getpid(),
            **more,
        }
        headers = {"Dagster-Cloud-Api-Token": self._token, "Content-Type": "application/json"}
        exchange = self._client.send(
            Request("POST", "/_hpc/report", headers, json.dumps(body).encode("utf-8"))
        )
        answer = exchange.read(LARGEST_ANSWER)
        if exchange.response.status != 200:
            raise ReportFailed("HTTP %d %s" % (exchange.response.status, _beginning(answer)))
        return _parse(answer)


def _parse(answer: bytes) -> Answer:
    """Read an answer; what is none may come of something between us and the agent."""
    document = parsed(answer) or {}
    proceed, resume = document.get("proceed"), document.get("resume", False)
    if not isinstance(proceed, bool) or not isinstance(resume, bool):
        raise ReportFailed("this is no answer of the agent: %s" % _beginning(answer))
    return Answer(proceed, str(document.get("reason") or "")[:_LONGEST_REASON], resume)


def _beginning(answer: bytes) -> str:
    return answer[:300].decode("utf-8", "replace")
