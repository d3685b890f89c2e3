"""The slot program's side of a warm child: a worker of a template, looked after by a guardian."""

from __future__ import annotations

import contextlib
import signal
import socket
from dataclasses import asdict, dataclass
from typing import Dict, List, Optional, Sequence, Tuple

from .. import signals
from ..child import Child, ExecChild, Usage
from ..descendants import descendants
from ..journal import log
from ..spec import TemplateSpec
from .messages import Closed, Message, receive, receive_now, send

# A guardian is forked at once; then it starts the worker.
_START_SECONDS = 30.0
_KILLED = -int(signal.SIGKILL)


class NotWarm(Exception):  # noqa: N818  (an outcome, not a fault)
    """No worker comes of the template; the message says why."""


@dataclass(frozen=True)
class Offer:
    """Where a template listens, and for how long it may be waited for, in seconds."""

    address: str
    patience: float


class WarmStart:
    """Starts the child of one member: of its template, or cold where there is none."""

    def __init__(
        self, template: Optional[TemplateSpec], cpus: Sequence[int], ask: socket.socket
    ) -> None:
        """Take what the member's template is, its CPUs, and where the supervisor makes offers."""
        self._template = template
        self._cpus = tuple(cpus)
        self._ask = ask

    def __call__(
        self,
        argv: Sequence[str],
        environment: Dict[str, str],
        cwd: Optional[str],
        output: Sequence[int],
        nice: int = 0,
    ) -> Child:
        """Start it, printing into two descriptors. Raises OSError."""
        order = {
            "argv": list(argv),
            "environment": environment,
            "directory": cwd,
            "nice": nice,
            "cpus": list(self._cpus),
        }
        try:
            child = ForkedChild(self._offer(argv), order, output)
        except NotWarm as reason:
            log("cold start: %s" % reason)
            return ExecChild(argv, environment, cwd, output, nice)
        log("warm start")
        return child

    def _offer(self, argv: Sequence[str]) -> Offer:
        template = self._template
        if template is None:
            raise NotWarm("the member has no template")
        if tuple(argv[: len(template.argv_prefix)]) != template.argv_prefix:
            raise NotWarm("it is another command than the template's")
        try:
            send(self._ask, {"template": asdict(template)})
            answer, _ = receive(self._ask)
        except Closed as error:
            raise NotWarm("the supervisor does not answer: %s" % error) from error
        if answer["address"] is None:
            raise NotWarm(answer["words"])
        return Offer(answer["address"], answer["patience"])


class ForkedChild(Child):
    """A worker in another process's family: its guardian acts for us, and dies with us."""

    def __init__(self, offer: Offer, order: Message, output: Sequence[int]) -> None:
        """Have a worker started. Raises NotWarm, and OSError for what the order says."""
        self._connection, self._guardian = _connected(offer)
        self._status: Optional[int] = None
        self._usage = Usage()
        try:
            send(self._connection, order, output)
            answer, _ = receive(self._connection)
        except Closed as error:
            self._connection.close()
            # It may have started: this is an end of the child, not a reason for another.
            raise OSError("its guardian has ended: %s" % error) from error
        if "pid" not in answer:
            self._connection.close()
            raise OSError(answer["errno"], answer["words"])
        self._pid = int(answer["pid"])
        signals.watch(self._connection.fileno())

    @property
    def pid(self) -> int:
        return self._pid

    def poll(self) -> Optional[int]:
        if self._status is None:
            try:
                told = receive_now(self._connection)
            except Closed:
                log("the guardian of process %d has been killed" % self._pid)
                self._status = _KILLED
            else:
                if told is not None:
                    self._status = int(told["status"])
                    self._usage = Usage(told["max_rss_kb"], told["cpu_seconds"])
        return self._status

    def terminate(self) -> None:
        self._tell({"signal": int(signal.SIGTERM)})

    def signal_group(self, number: int) -> None:
        self._tell({"group": int(number)})

    def end_all(self) -> None:
        # A guardian says how it ended when nothing is left.
        self._tell({"end": True})

    def family(self) -> List[int]:
        return descendants(self._guardian) if self._status is None else []

    def usage(self) -> Usage:
        return self._usage

    def _tell(self, message: Message) -> None:
        if self._status is None:
            with contextlib.suppress(Closed):  # `poll` finds out
                send(self._connection, message)


def _connected(offer: Offer) -> Tuple[socket.socket, int]:
    """Connect to a template and wait for a guardian. Raises NotWarm.

    Nothing has been started before the order is sent, so that there may be a cold start instead.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(offer.patience)
    try:
        connection.connect(offer.address)
        hello, _ = receive(connection)
    except (Closed, OSError) as error:
        connection.close()
        raise NotWarm(
            "the template gives no worker in %g s: %s" % (offer.patience, error)
        ) from error
    connection.settimeout(_START_SECONDS)
    return connection, int(hello["hello"])
