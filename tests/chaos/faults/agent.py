"""Faults of the agent's process: killed, asked to end, frozen, at every moment there is."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from random import Random

from tests.chaos.bed import Bed
from tests.chaos.fault import Fault, HasStruck, at_once
from tests.chaos.http import Call, Kind, Reply
from tests.chaos.proxy import CutError, Rule

GROUP = "the agent is killed"


class KillAt(Rule):
    """Kill the agent when a call of one kind is at one point of its way, the first few times."""

    def __init__(self, bed: Bed, kind: Kind, point: str, *, skip: int = 0, times: int = 1) -> None:
        self._bed = bed
        self._kind = kind
        self._point = point
        self._skip = skip
        self._left = times
        self.struck = False

    async def before(self, call: Call) -> Reply | None:
        if call.kind is self._kind and self._point == "before":
            self._strike()
        return None

    async def after(self, call: Call, reply: Reply) -> Reply:
        if self._is_meant(call, reply) and self._point == "passed on":
            self._strike()
        return reply

    async def sent(self, call: Call, reply: Reply) -> None:
        if self._is_meant(call, reply) and self._point == "answered":
            with contextlib.suppress(CutError):
                self._strike()

    def _is_meant(self, call: Call, reply: Reply) -> bool:
        return call.kind is self._kind and (call.kind is not Kind.POLL or reply.has_launch)

    def _strike(self) -> None:
        if self._skip:
            self._skip -= 1
            return
        if self._left:
            self._left -= 1
            self._bed.agent.kill()
            self.struck = not self._left
            raise CutError


# So that each call of a run is met some time: there are many events in a run, and few logs.
_SKIPPED = {Kind.EVENT: 40, Kind.LOG: 4, Kind.ANSWER: 3}


def _kill_at(name: str, kind: Kind, point: str, text: str, *, short: bool = False) -> Fault:
    @contextlib.contextmanager
    def inject(bed: Bed, random: Random) -> Iterator[HasStruck]:
        skip = random.randrange(_SKIPPED.get(kind, 1))
        rule = KillAt(bed, kind, point, skip=skip)
        with bed.proxy.ruled(rule):
            yield lambda: rule.struck and bed.agent.is_alive

    return Fault(
        name=name,
        group=GROUP,
        text=text,
        inject=inject,
        short=short,
        stock=kind in {Kind.POLL, Kind.ANSWER},
    )


def _kill_in(command: str, when: str, text: str, *, ends_runs: bool = False) -> Fault:
    before = 'if once kill; then kill_agent; fi; exec "$REAL" "$@"'
    after = 'out=$("$REAL" "$@"); code=$?; if once kill; then kill_agent; fi; printf "%s\\n" "$out"; exit $code'  # noqa: E501

    @contextlib.contextmanager
    def inject(bed: Bed, _random: Random) -> Iterator[HasStruck]:
        script = before if when == "before" else after
        with bed.commands.replaced(script, command) as struck:
            yield lambda: struck() and bed.agent.is_alive

    return Fault(
        name=f"kill {when} {command}",
        group=GROUP,
        text=text,
        inject=inject,
        ends_runs=ends_runs,
    )


_FILES = ("token", "spec.json", "node.pyz", "job.sh", "claim", "start.json", "exit.json")


def _kill_on_file(name: str) -> Fault:
    """Kill the agent as soon as a file of a new job's directory appears."""

    @contextlib.contextmanager
    def inject(bed: Bed, _random: Random) -> Iterator[HasStruck]:
        jobs = bed.work / "jobs"
        old = {path.name for path in jobs.iterdir()}

        def appeared() -> bool:
            return any((p / name).exists() for p in jobs.iterdir() if p.name not in old)

        with background(lambda: _strike_when(appeared, bed.agent.kill)) as done:
            yield lambda: done() and bed.agent.is_alive

    return Fault(
        name=f"kill at {name}",
        group=GROUP,
        text=f"kill -9 as soon as a new job directory has its `{name}`",
        inject=inject,
    )


def _strike_when(look: Callable[[], bool], strike: Callable[[], None]) -> None:
    deadline = time.monotonic() + 50
    while time.monotonic() < deadline:
        if look():
            strike()
            return
        time.sleep(0.001)


@contextlib.contextmanager
def background(work: Callable[[], None]) -> Iterator[HasStruck]:
    """Work in a thread; yields whether it is done, and waits for it at the end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield lambda: not thread.is_alive()
    finally:
        thread.join(60)


@contextlib.contextmanager
def _killed_at_random(bed: Bed, random: Random) -> Iterator[HasStruck]:
    pauses = [random.uniform(0.2, 4.0) for _ in range(4)]

    def work() -> None:
        for pause in pauses:
            time.sleep(pause)
            bed.agent.kill()

    with background(work) as done:
        yield lambda: done() and bed.agent.is_alive


@contextlib.contextmanager
def _terminated(bed: Bed, random: Random) -> Iterator[HasStruck]:
    time.sleep(random.uniform(0, 1.5))
    started = bed.agent.starts
    bed.agent.signal(signal.SIGTERM)
    yield lambda: bed.agent.starts > started


@contextlib.contextmanager
def _frozen(bed: Bed, random: Random) -> Iterator[HasStruck]:
    time.sleep(random.uniform(0, 1.5))
    bed.agent.freeze()
    try:
        yield at_once
    finally:
        bed.agent.thaw()


@contextlib.contextmanager
def _away(bed: Bed, random: Random) -> Iterator[HasStruck]:
    time.sleep(random.uniform(0, 1.5))
    bed.agent.rest_killed()
    try:
        yield at_once
    finally:
        bed.agent.start()


FAULTS = [
    _kill_at("kill before pop", Kind.POLL, "before", "kill -9 when the agent asks for work"),
    _kill_at(
        "kill with pop unread",
        Kind.POLL,
        "passed on",
        "kill -9 when the control plane has handed out runs, before the agent has the answer",
    ),
    _kill_at(
        "kill after pop",
        Kind.POLL,
        "answered",
        "kill -9 when the last byte of the popped runs is sent",
        short=True,
    ),
    *(
        _kill_at(
            f"kill {point} {kind.value}",
            kind,
            point,
            f"kill -9 when {what} {where}",
        )
        for kind, what in (
            (Kind.ANSWER, "an answer to a request"),
            (Kind.EVENT, "an event"),
            (Kind.LOG, "a compute log"),
            (Kind.HEARTBEAT, "a heartbeat"),
        )
        for point, where in (
            ("before", "is on its way to the control plane"),
            ("passed on", "has reached the control plane, which is not heard any more"),
        )
    ),
    *(
        _kill_in(command, when, f"kill -9 {text} {command}", ends_runs=command == "scancel")
        for command in ("sbatch", "squeue", "scancel")
        for when, text in (("before", "before"), ("after", "after the true answer of"))
    ),
    *(_kill_on_file(name) for name in _FILES),
    Fault(
        name="kill at random",
        group=GROUP,
        text="kill -9 four times at random moments",
        inject=_killed_at_random,
        stock=True,
    ),
    Fault(
        name="SIGTERM",
        group=GROUP,
        text="asked to end, and started again",
        inject=_terminated,
        stock=True,
    ),
    Fault(
        name="SIGSTOP",
        group=GROUP,
        text="frozen for 20 s",
        inject=_frozen,
        hold_seconds=20,
        stock=True,
    ),
    Fault(
        name="agent away",
        group=GROUP,
        text="killed and away for 20 s while runs write",
        inject=_away,
        hold_seconds=20,
        stock=True,
    ),
]
