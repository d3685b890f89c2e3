"""How the relay says no.

The stock client raises at once on a JSON answer with ``errors``, whatever the status, and retries
502, 503, 504 and 429 without it (dagster_cloud_cli/core/graphql_client.py).
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hpc_agent.outgoing.text import storable

RETRY_AFTER_SECONDS = 10
_LONGEST_REASON = 1000


class Refusal(Exception):  # noqa: N818  (an answer, not a fault)
    """An answer other than the one asked for."""

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


def unavailable(reason: str, retry_after: int = RETRY_AFTER_SECONDS) -> Refusal:
    """Make the refusal that asks the client to come back."""
    return Refusal(503, reason, retry_after)


async def answer_refusal(_request: Request, error: Exception) -> Response:
    """Turn a Refusal into its answer."""
    assert isinstance(error, Refusal)  # noqa: S101  (registered for Refusal only)
    reason = storable(error.reason)[:_LONGEST_REASON]  # it may quote what was asked
    if error.status >= 500:
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
        return JSONResponse({"error": reason}, error.status, headers)
    return JSONResponse({"errors": [{"message": reason}]}, error.status)
