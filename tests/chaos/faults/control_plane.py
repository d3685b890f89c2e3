"""Faults of the control plane, and of the way to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from random import Random

from tests.chaos.bed import Bed
from tests.chaos.fault import Fault, HasStruck, Inject, at_once
from tests.chaos.http import Call, Reply
from tests.chaos.proxy import CutError, Rule

GROUP = "the control plane is away"
_PAGE = b"<!DOCTYPE html><html><body><h1>Scheduled maintenance</h1></body></html>"
_HTML = (("Content-Type", "text/html"),)


class Answering(Rule):
    """Every call is answered in the control plane's place."""

    def __init__(self, reply: Reply, *, passing_on: bool = False) -> None:
        self._reply = reply
        self._passing_on = passing_on

    async def before(self, _call: Call) -> Reply | None:
        return None if self._passing_on else self._reply

    async def after(self, _call: Call, _reply: Reply) -> Reply:
        return self._reply


class Cutting(Rule):
    """Calls reach the control plane; of each answer only the first half comes back."""

    async def after(self, _call: Call, reply: Reply) -> Reply:
        return Reply(
            status=reply.status,
            headers=reply.headers,
            body=reply.body,
            cut=len(reply.body) // 2,
        )


class Refusing(Rule):
    """No connection holds."""

    async def before(self, _call: Call) -> Reply | None:
        raise CutError


class Silent(Rule):
    """Calls are taken and never answered."""

    async def before(self, _call: Call) -> Reply | None:
        await asyncio.sleep(3600)
        return None


class Slow(Rule):
    """Each call takes seconds more."""

    def __init__(self, random: Random) -> None:
        self._random = random

    async def before(self, _call: Call) -> Reply | None:
        await asyncio.sleep(self._random.uniform(0.5, 3))
        return None


class Losing(Rule):
    """One in three calls is lost on the way there, and one in three answers on the way back."""

    def __init__(self, random: Random) -> None:
        self._random = random

    async def before(self, _call: Call) -> Reply | None:
        if self._random.random() < 1 / 3:
            raise CutError
        return None

    async def after(self, _call: Call, reply: Reply) -> Reply:
        if self._random.random() < 1 / 3:
            raise CutError
        return reply


def _by_rule(name: str, text: str, make: Callable[[Random], Rule], *, short: bool = False) -> Fault:
    @contextlib.contextmanager
    def inject(bed: Bed, random: Random) -> Iterator[HasStruck]:
        with bed.proxy.ruled(make(random)):
            yield at_once

    return Fault(
        name=name,
        group=GROUP,
        text=text,
        inject=inject,
        hold_seconds=20,
        short=short,
        stock=True,
    )


def _status(code: int, text: str, *headers: tuple[str, str], body: bytes = b"") -> Fault:
    reply = Reply(status=code, headers=[("Content-Type", "text/plain"), *headers], body=body)
    return _by_rule(f"control plane {code}", text, lambda _: Answering(reply))


@contextlib.contextmanager
def _killed(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    bed.control_plane.keeper.rest_killed()
    try:
        yield at_once
    finally:
        bed.control_plane.start()


def _frozen(*, alone: bool) -> Inject:
    @contextlib.contextmanager
    def inject(bed: Bed, _random: Random) -> Iterator[HasStruck]:
        with bed.control_plane.frozen(alone=alone):
            yield at_once

    return inject


FAULTS = [
    Fault(
        name="control plane killed",
        group=GROUP,
        text="kill -9 of gateway, webserver and daemon; 15 s later they are started again",
        inject=_killed,
        hold_seconds=15,
        stock=True,
    ),
    Fault(
        name="control plane frozen",
        group=GROUP,
        text="all of it is stopped by SIGSTOP for 20 s",
        inject=_frozen(alone=False),
        hold_seconds=20,
        stock=True,
    ),
    Fault(
        name="gateway frozen",
        group=GROUP,
        text="the gateway alone is stopped by SIGSTOP for 20 s, while Dagster's daemon goes on",
        inject=_frozen(alone=True),
        hold_seconds=20,
        stock=True,
    ),
    _by_rule("control plane unreachable", "no connection holds for 20 s", lambda _: Refusing()),
    _by_rule("control plane silent", "calls are not answered for 20 s", lambda _: Silent()),
    _by_rule("control plane slow", "each call takes 0.5 to 3 s more", Slow),
    _by_rule(
        "calls lost",
        "one in three calls, and one in three answers, is lost for 20 s",
        Losing,
        short=True,
    ),
    _status(429, "429 with Retry-After for 20 s", ("Retry-After", "1")),
    _status(500, "500 for 20 s"),
    _status(502, "502 of a proxy for 20 s", body=b"Bad Gateway"),
    _status(503, "503 with Retry-After for 20 s", ("Retry-After", "1")),
    _by_rule(
        "control plane 401",
        "401 for 20 s: the token is not known for a while",
        lambda _: Answering(Reply(status=401, body=b'{"error": "unauthorized"}')),
    ),
    _by_rule(
        "control plane HTML",
        "every call is answered with 200 and a page of HTML for 20 s",
        lambda _: Answering(Reply(status=200, headers=_HTML, body=_PAGE)),
    ),
    _by_rule(
        "answers garbled",
        "calls reach the control plane, and each answer becomes 200 and a page of HTML for 20 s",
        lambda _: Answering(Reply(status=200, headers=_HTML, body=_PAGE), passing_on=True),
    ),
    _by_rule(
        "control plane garbage",
        "every call is answered with 200 and JSON that means nothing for 20 s",
        lambda _: Answering(Reply(status=200, body=b'{"data": {"userCloudAgent": []}}')),
    ),
    _by_rule(
        "control plane errors",
        "every call is answered with 200 and a GraphQL error for 20 s",
        lambda _: Answering(Reply(status=200, body=b'{"errors": [{"message": "try again"}]}')),
    ),
    _by_rule(
        "answers truncated",
        "calls reach the control plane, and half of each answer comes back, for 20 s",
        lambda _: Cutting(),
    ),
]
