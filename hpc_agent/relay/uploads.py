"""Pre-signed upload addresses, turned into addresses on the job's loopback: pure functions.

``/_hpc/upload/PAYLOAD.SIGNATURE``: PAYLOAD holds the real URL and the relay's own seal over it, so
that a job cannot make the login node send data to an address of its choice; SIGNATURE is keyed by
the job token, so that the node program can check it too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Any

UPLOAD_PREFIX = "/_hpc/upload/"
_SEAL_BYTES = 16


def signed_path(url: str, *, token: str, secret: bytes) -> str:
    """Return the path under which a job may upload to ``url``."""
    payload = base64.urlsafe_b64encode(_seal(url, token, secret) + url.encode()).decode()
    return f"{UPLOAD_PREFIX}{payload}.{_signature(payload, token)}"


def real_url(path: str, *, token: str, secret: bytes) -> str | None:
    """Return the URL behind a path, or None when it was not signed for this job by this relay."""
    payload, _, signature = path.removeprefix(UPLOAD_PREFIX).partition(".")
    if not _same(signature, _signature(payload, token)):
        return None
    try:
        content = base64.urlsafe_b64decode(payload)
        seal, url = content[:_SEAL_BYTES], content[_SEAL_BYTES:].decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return url if hmac.compare_digest(seal, _seal(url, token, secret)) else None


def rewritten(answer: Any, *, loopback: str, token: str, secret: bytes) -> Any:
    """Return the answer of ``/gen_logs_url`` with its URL replaced by one on the loopback."""
    if not isinstance(answer, dict) or not isinstance(answer.get("url"), str):
        return answer
    return {
        **answer,
        "url": f"http://{loopback}{signed_path(answer['url'], token=token, secret=secret)}",
    }


def _seal(url: str, token: str, secret: bytes) -> bytes:
    return hmac.new(secret, f"{token}\0{url}".encode(), hashlib.sha256).digest()[:_SEAL_BYTES]


def _signature(payload: str, token: str) -> str:
    digest = hmac.new(token.encode(), payload.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
