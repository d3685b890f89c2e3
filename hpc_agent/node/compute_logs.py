"""What steps print, carried to the control plane while they run and when they are over.

The process that captures may die of anything. This program outlives it, so it is this program that
uploads: at intervals what is there so far, and all of it once the step, or the job, has ended.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Dict, List, Tuple

from .captured import Captured, captured_below, remove
from .journal import log as note
from .log_upload import LogUpload, NotUploaded, Refused
from .spec import LogSettings

_LOOK_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 60.0
# The whole log goes up each time: the larger it is, the more rarely.
_SHARE_OF_TIME = 10
_LAST_TRIES = 10
# Logs of ticks have no end that is marked: one that is quiet for so long is taken for whole.
_QUIET_SECONDS = 5.0
_FORGOTTEN_SECONDS = 600.0


@dataclass
class _Progress:
    """What of a log the control plane has; ``due`` by the monotonic clock."""

    sent: Tuple[int, int] = (-1, -1)  # its size, and when it had changed
    is_final: bool = False
    is_given_up: bool = False
    due: float = 0.0
    failures: int = 0
    last_tries: int = 0
    quiet_since: float = 0.0


class ComputeLogs:
    """Uploads all that is captured below a directory, in one thread.

    ``waits_for_end``: a log is whole when its step or the job has ended, and not when it is quiet.
    """

    def __init__(
        self,
        directory: str,
        upload: LogUpload,
        settings: LogSettings,
        *,
        waits_for_end: bool,
        rest_is_in: str,
    ) -> None:
        """Take where Dagster captures, and the file that has the whole output of the job."""
        self._directory = directory
        self._upload = upload
        self._settings = settings
        self._waits_for_end = waits_for_end
        self._rest_is_in = rest_is_in
        self._progress: Dict[str, _Progress] = {}
        self._is_over = threading.Event()
        self._moved = time.monotonic()
        self._thread = threading.Thread(target=self._carry, name="compute logs", daemon=True)

    def start(self) -> None:
        """Upload from now on."""
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Upload what is left, once nobody captures any more.

        Given up when nothing has moved for ``seconds``; then the job's log says what is missing.
        """
        self._moved = time.monotonic()
        self._is_over.set()
        while self._thread.is_alive() and time.monotonic() - self._moved < seconds:
            self._thread.join(0.1)
        if self._thread.is_alive():
            for log in captured_below(self._directory):
                if not self._progress.setdefault(log.path, _Progress()).is_final:
                    self._tell_missing(log)

    def _carry(self) -> None:
        try:
            self._carry_all()
        except Exception as error:  # noqa: BLE001  (whatever it is, the job goes on and says it)
            note("compute logs are not uploaded any more: %r" % error)

    def _carry_all(self) -> None:
        while not self._is_over.wait(_LOOK_SECONDS):
            found = captured_below(self._directory)
            for log in found:
                self._serve(log, is_over=False)
            self._clear(found)
        for progress in self._progress.values():
            progress.due = 0.0
        while self._left():
            time.sleep(_LOOK_SECONDS)

    def _left(self) -> List[Captured]:
        """Upload all of everything; return what is not there yet."""
        return [log for log in captured_below(self._directory) if not self._serve(log, True)]

    def _serve(self, log: Captured, is_over: bool) -> bool:
        """Upload a log if it is due; return whether all of it is there."""
        progress = self._progress.setdefault(log.path, _Progress())
        if progress.is_given_up:
            return True
        state, now = (log.size, log.changed_ns), time.monotonic()
        is_whole = is_over or log.is_complete or self._is_quiet(state, progress, now)
        if progress.sent == state and (progress.is_final or not is_whole):
            return is_whole
        if not is_whole and (log.size == 0 or progress.sent[0] >= self._settings.most_bytes):
            return False
        # Once all is over, what failed is tried again at once: there is no later.
        if now < progress.due and not (is_whole and not progress.failures):
            return False
        return self._send(log, progress, is_whole)

    def _is_quiet(self, state: Tuple[int, int], progress: _Progress, now: float) -> bool:
        if self._waits_for_end:
            return False
        if progress.sent != state:
            progress.quiet_since = now
        return now - progress.quiet_since > _QUIET_SECONDS

    def _send(self, log: Captured, progress: _Progress, is_whole: bool) -> bool:
        began = time.monotonic()
        try:
            self._upload.send(log, self._part(log), not is_whole, self._note_progress)
        except Refused as error:
            note("%s is not uploaded: %s" % (log.name, error))
            progress.is_given_up = True
            return True
        except NotUploaded as error:
            return self._bear(log, progress, error)
        self._note_progress()
        progress.sent, progress.is_final, progress.failures = (
            (log.size, log.changed_ns),
            is_whole,
            0,
        )
        took = time.monotonic() - began
        pause = max(self._settings.interval_seconds, took * _SHARE_OF_TIME)
        progress.due = time.monotonic() + pause
        return is_whole

    def _bear(self, log: Captured, progress: _Progress, error: NotUploaded) -> bool:
        progress.failures += 1
        if progress.failures == 1:
            note("cannot upload %s: %s" % (log.name, error))
        if self._is_over.is_set():
            progress.last_tries += 1
            progress.is_given_up = progress.last_tries >= _LAST_TRIES
            if progress.is_given_up:
                self._tell_missing(log)
        pause = 1.0 if self._is_over.is_set() else 2.0 ** min(progress.failures, 10)
        progress.due = time.monotonic() + min(_MAX_PAUSE_SECONDS, pause)
        return progress.is_given_up

    def _tell_missing(self, log: Captured) -> None:
        note(
            "%s (%d bytes) is not uploaded: what the job has printed is in %s"
            % (log.name, log.size, self._rest_is_in)
        )

    def _part(self, log: Captured) -> Tuple[int, bytes]:
        """Return how much of a log goes up, and what is said at its end."""
        excess = log.size - self._settings.most_bytes
        if excess <= 0:
            return log.size, b""
        end = (
            "\n[hpc-agent: %d bytes are missing here: compute_logs.max_mb of agent.yaml allows %d "
            "MiB. All that the job has printed is on the cluster, in %s]\n"
            % (excess, self._settings.most_bytes >> 20, self._rest_is_in)
        )
        return self._settings.most_bytes, end.encode("utf-8", "replace")

    def _clear(self, found: List[Captured]) -> None:
        """Remove what is uploaded for good; the node's disk is small."""
        keys: Dict[str, List[Captured]] = {}
        for log in found:
            keys.setdefault(log.path[: -len(".out")], []).append(log)
        now = time.monotonic()
        for key_path, logs in keys.items():
            if all(self._is_done(log, now) for log in logs):
                remove(key_path)
                for log in logs:
                    del self._progress[log.path]

    def _is_done(self, log: Captured, now: float) -> bool:
        progress = self._progress[log.path]
        if log.is_complete:
            return progress.is_given_up or (
                progress.is_final and progress.sent == (log.size, log.changed_ns)
            )
        if self._waits_for_end:
            return False
        return progress.is_final and now - progress.quiet_since > _FORGOTTEN_SECONDS

    def _note_progress(self) -> None:
        self._moved = time.monotonic()
