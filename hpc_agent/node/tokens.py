"""The job token on the loopback: who may ask, and which upload addresses the relay has signed."""

from __future__ import annotations

import base64
import hashlib
import hmac

TOKEN_HEADER = "Dagster-Cloud-Api-Token"  # noqa: S105  (a name)
LOOPBACK_HEADER = "X-Hpc-Loopback"
# The relay refuses what is left of an earlier start on a node that Slurm took for dead.
RESTART_HEADER = "X-Hpc-Restart"
UPLOAD_PREFIX = "/_hpc/upload/"


def same_token(given: str, token: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode("utf-8"), token.encode("utf-8"))


def upload_is_signed(path: str, token: str) -> bool:
    """Whether ``/_hpc/upload/PAYLOAD.SIGNATURE`` was signed with this token."""
    payload, _, signature = path[len(UPLOAD_PREFIX) :].partition(".")
    digest = hmac.new(token.encode("utf-8"), payload.encode("ascii", "replace"), hashlib.sha256)
    expected = base64.urlsafe_b64encode(digest.digest()).decode("ascii")
    return same_token(signature, expected)
