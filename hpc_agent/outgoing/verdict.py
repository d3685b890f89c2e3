"""What an answer of the control plane says about the message that was sent: one verdict. Pure.

sent    a 2xx that the agent API would give
later   it says nothing about the message: tried again without limit
doubt   an error of the control plane's own, or an answer that nobody can read: it may pass, or
        be this message's fault; tried again for a stated time
never   a definite refusal of this message
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import httpx

from hpc_agent.inbound.json_text import loads
from hpc_agent.outgoing.graphql_answer import Path, field_at

LONGEST_RETRY_AFTER = 300.0
_WORDS = 2000

# About the caller, its token, its account or its haste; about a lock; never about the message.
# 402 is the account's (payment), 407 the proxy's, 409 a copy of the same message that is at work.
_ABOUT_THE_CALLER = frozenset({401, 402, 403, 407, 408, 409, 421, 423, 425, 429})
# Where it is not in JSON, as the agent API answers, a firewall before it may dislike this message.
_OF_A_FIREWALL = frozenset({401, 403})
# The control plane's own fault (500), or an address that it does not serve (for now).
_OWN_FAULT = frozenset({500, 501})
# A load balancer without a backend says them as well, and of every message: believed of the agent
# API only, which answers in JSON.
_ABOUT_THE_ADDRESS = frozenset({404, 405})


_BROKEN_OFF = (
    TimeoutError,
    httpx.ReadError,
    httpx.WriteError,
    httpx.RemoteProtocolError,
    httpx.DecodingError,
    httpx.ReadTimeout,
    httpx.WriteTimeout,
)


class Fate(Enum):
    """What becomes of a message."""

    SENT = "sent"
    LATER = "later"
    DOUBT = "doubt"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A fate, in words that a person can act on; ``retry_after`` is what was asked for, or 0.

    ``is_suspect``: the message was on its way and no whole answer came, or something before the
    control plane refuses it. That may be its own fault, if others are taken meanwhile.
    """

    fate: Fate
    words: str = ""
    retry_after: float = 0.0
    is_suspect: bool = False


SENT = Verdict(Fate.SENT)


def later(words: str) -> Verdict:
    """Return the verdict on a message of which nothing was said."""
    return Verdict(Fate.LATER, words[:_WORDS])


def never(words: str) -> Verdict:
    """Return the verdict on a message that cannot be sent whatever the control plane says."""
    return Verdict(Fate.NEVER, words[:_WORDS])


def of_error(error: Exception) -> Verdict:
    """Return the verdict when no whole answer came, or no request could be made of the message."""
    words = (str(error) or type(error).__name__)[:_WORDS]
    kinds = (error, error.__cause__)
    if any(isinstance(each, httpx.LocalProtocolError) for each in kinds):
        return Verdict(Fate.DOUBT, words)
    is_broken = any(isinstance(each, _BROKEN_OFF) for each in kinds)
    return Verdict(Fate.LATER, words, is_suspect=is_broken)


def of_graphql(answer: httpx.Response, results: Iterable[Path]) -> Verdict:
    """Return the verdict of an answer to GraphQL mutations; ``results``: where it holds theirs."""
    return _of_status(answer) or _of_data(answer, results)


def of_rest(answer: httpx.Response) -> Verdict:
    """Return the verdict of an answer to a REST call.

    What it says on success is not promised to be JSON; a web page it is not.
    """
    return _of_status(answer) or SENT


def _of_status(answer: httpx.Response) -> Verdict | None:
    """Return what the status alone decides, None for a 2xx that the agent API may have given."""
    status, words = answer.status_code, _told(answer)
    if notice := maintenance(answer.text):
        return Verdict(Fate.LATER, notice, _retry_after(answer))
    if status < 300:
        return later(f"a web page instead of an answer: {words}") if _is_page(answer) else None
    if status < 400:
        return later(f"sent elsewhere, to {answer.headers.get('Location', 'nowhere')}: {words}")
    if status in _ABOUT_THE_CALLER or status > 501:
        is_suspect = status in _OF_A_FIREWALL and json_object(answer) is None
        return Verdict(Fate.LATER, words, _retry_after(answer), is_suspect=is_suspect)
    if status in _OWN_FAULT or (status in _ABOUT_THE_ADDRESS and json_object(answer) is None):
        return Verdict(Fate.DOUBT, words, _retry_after(answer))
    return never(words)


def _of_data(answer: httpx.Response, results: Iterable[Path]) -> Verdict:
    content = json_object(answer)
    if content is None:
        return Verdict(Fate.DOUBT, f"not the JSON of an answer: {_told(answer)}")
    if content.get("errors"):
        return Verdict(Fate.DOUBT, f"GraphQL: {json.dumps(content['errors'])}"[:_WORDS])
    if not all(_is_done(content.get("data"), path) for path in results):
        return Verdict(Fate.DOUBT, f"not said to be done: {_told(answer)}")
    return SENT


def _is_done(data: Any, path: Path) -> bool:
    """Whether an answer holds a mutation's result, and that is not ``ok: false``."""
    try:
        result = field_at(data, path)
    except LookupError:
        return False
    return bool(result) and not (isinstance(result, dict) and result.get("ok") is False)


def json_object(answer: httpx.Response) -> dict[str, Any] | None:
    """Return an answer's JSON object, None when it is none."""
    try:
        content = loads(answer.content)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def maintenance(text: str) -> str | None:
    """Say what an operator's notice says, whatever the status that it comes with.

    The stock client looks for it in every answer (dagster_cloud_cli/core/graphql_client.py:
    DagsterCloudMaintenanceException).
    """
    if '"maintenance"' not in text:
        return None
    try:
        content = loads(text)
    except ValueError:
        return None
    notice = content.get("maintenance") if isinstance(content, dict) else None
    if not isinstance(notice, dict):
        return None
    return f"the control plane is in maintenance: {notice.get('message')}"[:_WORDS]


def _is_page(answer: httpx.Response) -> bool:
    """Whether this is a web page: of a captive portal, a login form, a proxy."""
    media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return media_type in {"text/html", "application/xhtml+xml"} or (
        answer.content[:200].lstrip().lower().startswith((b"<!doctype", b"<html"))
    )


def _told(answer: httpx.Response) -> str:
    return (
        f"HTTP {answer.status_code}: {answer.text}"[:_WORDS]
        if answer.content
        else (f"HTTP {answer.status_code}")
    )


def _retry_after(answer: httpx.Response) -> float:
    """Return the seconds of ``Retry-After`` (RFC 9110, section 10.2.3), bounded."""
    value = answer.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        seconds = float(value[:9])
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError, OSError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
