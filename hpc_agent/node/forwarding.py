"""Sending a request through relay restarts: what may be sent again, and for how long."""

from __future__ import annotations

import random
import time
from typing import Optional

from .relay_client import Exchange, NoAnswer, NotSent, RelayClient, Request

# Less than the 60 s after which the stock dagster-cloud client gives up on an answer.
PATIENCE_SECONDS = 45.0
RETRY_AFTER_SECONDS = 15
MAX_PAUSE_SECONDS = 3.0


class Unavailable(Exception):  # noqa: N818
    """The relay cannot be reached (503), or may or may not have acted on the request (502)."""

    def __init__(self, status: int, message: str, retry_after: Optional[int] = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


def send(client: RelayClient, request: Request, patience: float = PATIENCE_SECONDS) -> Exchange:
    """Send a request, again after each failure that allows it. Raises Unavailable."""
    deadline = time.monotonic() + patience
    pause = 0.1
    while True:
        try:
            return client.send(request)
        except NotSent as error:
            if time.monotonic() >= deadline:
                raise Unavailable(503, str(error), RETRY_AFTER_SECONDS) from error
        except NoAnswer as error:
            if not may_repeat(request):
                raise Unavailable(502, str(error)) from error
            if time.monotonic() >= deadline:
                raise Unavailable(503, str(error), RETRY_AFTER_SECONDS) from error
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (jitter)
        pause = min(pause * 2, MAX_PAUSE_SECONDS)


def may_repeat(request: Request) -> bool:
    """Whether sending the request twice has the effect of sending it once.

    The stock client's own rule (dagster_cloud_cli/core/graphql_client.py): queries, and whatever
    carries an Idempotency-Key. A streamed body is gone once it was sent.
    """
    if not isinstance(request.body, bytes):
        return False
    if request.method in ("GET", "PUT"):
        return True
    if any(name.lower() == "idempotency-key" for name in request.headers):
        return True
    return request.path.split("?")[0] == "/graphql" and b"mutation " not in request.body
