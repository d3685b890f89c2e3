"""What a job says by Dagster Pipes, on its way into the run: each message once."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dagster as dg
from dagster._check import CheckError
from dagster._core.errors import DagsterError, DagsterPipesExecutionError  # type: ignore[attr-defined]

from dagster_hpc.commands.exchange import Exchange
from dagster_hpc.commands.tail import PAUSE, Line, LineTail, TailError

_LEVELS = frozenset({"debug", "info", "warning", "warn", "error", "critical", "fatal"})
_SHOWN = 200
_LONGEST_WORDS = 600


class BrokenMessageError(Exception):
    """A line that is no message of Dagster Pipes."""


class _FileReader(dg.PipesMessageReader):
    """Reads nothing by itself: lines are handed over as somebody asks for them."""

    # Of Dagster 1.13, whose own default warns of being new.
    expected_writer_count = 1

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[dict[str, Any]]:
        yield {}

    def no_messages_debug_text(self) -> str:
        return "Messages are read from a file in the job's directory."


class Reported(dg.PipesMessageHandler):
    """All that the jobs of one call have reported: results with the message that each came by.

    A job that was started again reports once more what it had before: the first report counts,
    since Dagster may have it.
    """

    def __init__(self, context: dg.OpExecutionContext) -> None:
        super().__init__(context, _FileReader())
        self.results: dict[Hashable, tuple[dg.PipesExecutionResult, str]] = {}

    def take(self, message: dict[str, Any], origin: str) -> None:
        """Take a message that is no log. Raises BrokenMessageError."""
        try:
            self.handle_message(message)  # type: ignore[arg-type]
        except _MALFORMED as error:
            raise BrokenMessageError(str(error)) from error
        while not self._result_queue.empty():
            result = self._result_queue.get()
            self.results.setdefault(subject_of(result), (result, origin))

    @property
    def received_closed_message(self) -> bool:
        """Never: a job that was started again goes on after its end."""
        return False

    def get_reported_results(self) -> Sequence[dg.PipesExecutionResult]:
        """Return what was reported, in its order."""
        return [result for result, _ in self.results.values()]


_MALFORMED = (
    DagsterError,
    DagsterPipesExecutionError,
    CheckError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
)


class Messages:
    """The messages of one job.

    Log messages are given to Dagster at once, and not again by a process that comes later;
    everything else is read again by each process, since ``Reported`` is to have it.
    A file system that refuses to be read or written for a while loses nothing and ends nothing.
    """

    def __init__(
        self,
        context: dg.OpExecutionContext,
        exchange: Exchange,
        reported: Reported,
        *,
        name: str,
        logged: Counter[str],
    ) -> None:
        self._context = context
        self._exchange = exchange
        self._reported = reported
        self._name = name
        self._logged = logged
        self._lines = LineTail(exchange.messages)
        self._delivered = self._written = exchange.delivered()
        self._is_refused = False
        self._is_over = False

    @property
    def asked_at(self) -> float:
        """When the job was first asked for."""
        return self._delivered.created

    def pass_on(self) -> bool:
        """Hand on what a chunk of the file says; return whether there was anything."""
        if self._is_over:
            return False
        try:
            lines = self._lines.read()
        except TailError as error:
            self._context.log.warning("no more messages of the job are read: %s", error)
            self._is_over = True
            return False
        for line in lines or ():
            self._hand_on(line)
        if lines:
            self._note(lines[-1].end)
        self._write_down()
        return lines is not None

    def pass_on_the_rest(self, until: float) -> bool:
        """Hand on all that is left after the job's end, a last line without an end too.

        False when the file system has refused that up to ``until``, of ``time.monotonic``.
        """
        told = ""
        while self.pass_on() or self._lines.trouble is not None:
            if self._lines.trouble is None:
                continue
            words = f"what the job has reported cannot be read: {self._lines.trouble}"
            if words != told:
                self._context.log.warning(words)
                told = words
            if time.monotonic() >= until:
                return False
            time.sleep(PAUSE)
        last = None if self._is_over else self._lines.last()
        if last is not None:
            self._hand_on(last)
            self._note(last.end)
            self._write_down()
        return True

    def _hand_on(self, line: Line) -> None:
        try:
            message = _message(line)
            if message["method"] == "log":
                self._log(line, *_level_and_text(message["params"]))
            elif message["method"] == "log_external_stream":
                self._print(message["params"])
            elif message["method"] == "opened":
                self._log(line, "debug", "the command speaks Dagster Pipes")
            elif message["method"] != "closed" or line.end > self._delivered.offset:
                self._reported.take(message, f"{self._name}:{line.number}")
        except BrokenMessageError as error:
            words = f"message {line.number} of the job is skipped: {error}"
            self._log(line, "warning", words[:_LONGEST_WORDS])

    def _log(self, line: Line, level: str, text: str) -> None:
        if line.end <= self._delivered.offset:
            return
        if self._logged[text] > 0:
            self._logged[text] -= 1
            return
        # What was delivered without being written down is the beginning of what is left.
        self._logged.clear()
        self._context.log.log(level, text)

    def _print(self, params: Any) -> None:
        if not isinstance(params, dict) or not isinstance(params.get("text"), str):
            raise BrokenMessageError("output without a text")
        stream = sys.stderr if params.get("stream") == "stderr" else sys.stdout
        stream.write(params["text"])

    def _note(self, offset: int) -> None:
        if offset > self._delivered.offset:
            self._delivered = replace(self._delivered, offset=offset, at=time.time())

    def _write_down(self) -> None:
        """Write how far the messages have come; what is refused is written the next time."""
        if self._written == self._delivered:
            return
        try:
            self._exchange.store(self._delivered)
        except OSError as error:
            if not self._is_refused:
                self._context.log.warning(
                    "how far messages are read is not written down: %s", error
                )
            self._is_refused = True
        else:
            self._written = self._delivered
            self._is_refused = False


def _message(line: Line) -> dict[str, Any]:
    if line.content is None:
        raise BrokenMessageError("the line is too long")
    try:
        message = json.loads(line.content.decode(errors="replace"))
    except (ValueError, RecursionError):
        raise BrokenMessageError(f"no JSON: {line.content[:_SHOWN]!r}") from None
    if not isinstance(message, dict) or not isinstance(message.get("method"), str):
        raise BrokenMessageError(f"no message of Dagster Pipes: {line.content[:_SHOWN]!r}")
    message.setdefault("params", None)
    return message


def _level_and_text(params: Any) -> tuple[str, str]:
    if not isinstance(params, dict) or not isinstance(params.get("message"), str):
        raise BrokenMessageError("a log message without a text")
    level = str(params.get("level", "info")).lower()
    if level not in _LEVELS:
        raise BrokenMessageError(f"no level of logging: {level}")
    return level, params["message"]


def subject_of(result: dg.PipesExecutionResult) -> Hashable:
    """Return what a result is about: of one thing there is one report."""
    if isinstance(result, dg.AssetCheckResult):
        return result.asset_key, result.check_name
    return result.asset_key
