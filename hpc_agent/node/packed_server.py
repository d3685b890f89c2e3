"""A server of a pack: its script, from its start to the record of its end.

The node program that the script becomes leaves that record itself. Of a script that ends before, or
that cannot be started, nobody else would tell the agent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Optional

from . import records
from .child import before_exec
from .claim import claimant
from .job_files import create_json, open_output, open_regular
from .journal import log
from .records import STDERR_TAIL_BYTES, Ending, exit_record

_START_SECONDS = 60.0
_BASH = "/bin/bash"


class PackedServer:
    """Starts a server once: one that has ended is not started again under the same key."""

    def __init__(self, directory: str, key: str) -> None:
        """Take the server's job directory."""
        self._directory = directory
        self._key = key
        self._context = records.current_context(key)
        self._start_by = time.monotonic() + _START_SECONDS
        self._process: "Optional[subprocess.Popen[bytes]]" = None
        self._ending: Optional[Ending] = None
        self._is_asked = False
        self._told = ""

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or will never start."""
        return self._ending is not None

    def follow(self, is_ordered: bool) -> bool:
        """Start it, or see how it stands; False when it is over and its end on record."""
        if self._ending is None:
            self._ending = self._look(is_ordered)
        return self._ending is None or not self._is_on_record(self._ending)

    def end(self) -> None:
        """Ask it to end, once: a second signal could cut its farewell short."""
        if self._process is not None and not self._is_asked:
            self._is_asked = True
            log("ending server %s" % self._key)
            self._process.send_signal(signal.SIGTERM)

    def runs(self) -> bool:
        """Whether its process has not ended."""
        return self._process is not None and self._process.poll() is None

    def _look(self, is_ordered: bool) -> Optional[Ending]:
        if self._process is None:
            if not is_ordered:
                return Ending(records.NOT_STARTED, reason="not ordered any more")
            return self._start()
        status = self._process.poll()
        if status is not None:
            return self._ended(status)
        if not is_ordered:
            self.end()
        return None

    def _start(self) -> Optional[Ending]:
        """Start it; the disk, or the node, may refuse that for a while."""
        try:
            with os.fdopen(open_output(self._path("slurm.out")), "ab") as output:
                self._process = subprocess.Popen(
                    [_BASH, self._path("job.sh")],
                    cwd=self._directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    preexec_fn=before_exec(),  # noqa: PLW1509  (one thread)
                )
        except (OSError, subprocess.SubprocessError) as error:
            reason = "cannot start its script on %s: %s" % (self._context.hostname, error)
            self._say(reason)
            is_late = time.monotonic() >= self._start_by
            return Ending(records.NOT_STARTED, reason=reason) if is_late else None
        log("started server %s as process %d" % (self._key, self._process.pid))
        return None

    def _ended(self, status: int) -> Ending:
        log("server %s ended with status %d" % (self._key, status))
        number = -status if status < 0 else None
        if number is None:
            reason = "its script ended with status %d" % status
        else:
            reason = "its script was killed by signal %d" % number
        return Ending(
            records.TERMINATED if self._is_asked else records.EXITED,
            reason=reason,
            exit_code=status if number is None else None,
            signal=number,
            ended_on=signal.Signals.SIGTERM.name if self._is_asked else None,
            # Of what has failed it is the last lines that its location shows.
            stderr_tail="\n".join(filter(None, [self._last_lines(), reason])),
        )

    def _is_on_record(self, ending: Ending) -> bool:
        """Leave a record where there is none; False while the disk refuses it."""
        try:
            earlier = claimant(self._directory)
            # A pack may have been submitted twice: its servers live in the other job.
            is_own = earlier is None or earlier["slurm_job_id"] == self._context.slurm_job_id
            if is_own and create_json(self._path("exit.json"), exit_record(self._context, ending)):
                log("server %s has left no record of its end: noted" % self._key)
        except FileNotFoundError:
            return True  # its directory is gone
        except OSError as error:
            self._say("cannot note its end: %s" % error)
            return False
        return True

    def _last_lines(self) -> str:
        try:
            with os.fdopen(open_regular(self._path("slurm.out"), os.O_RDONLY), "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - STDERR_TAIL_BYTES))
                return file.read(STDERR_TAIL_BYTES).decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _say(self, words: str) -> None:
        if words != self._told:
            self._told = words
            log("server %s: %s" % (self._key, words))
