"""What keeps an agent running, as systemd does with Restart=always and RestartSec=1."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

RESTART_SECONDS = 1.0
_LOOK_SECONDS = 0.05
_TERM_SECONDS = 30.0


class Keeper:
    """Starts a program, and starts it again whenever it ends, until it is told not to."""

    def __init__(
        self, argv: Sequence[str], log: Path, *, pid_file: Path, environment: Mapping[str, str]
    ) -> None:
        self.argv = list(argv)
        self.log = log
        self.environment = dict(environment)
        self.starts = 0
        self._since = log.stat().st_size if log.exists() else 0
        self._pid_file = pid_file
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start it, and keep it running from now on."""
        with self._lock:
            self._wanted = True
            if not self.is_alive:
                self._spawn()
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)
            self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or is frozen."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The pid of the last start."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; it is started again when that ends it."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._process is not None:
                self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does."""
        self.signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it where it is."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def restart(self, ready: bytes) -> None:
        """End it in good order, and start it until its log says that it is ready."""
        self.rest()
        since = self.log.stat().st_size if self.log.exists() else 0
        self.start()
        deadline = time.monotonic() + _TERM_SECONDS
        while not self.says(ready, since=since) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)

    def rest(self) -> None:
        """End it by SIGTERM, and start it again only when told."""
        self._wanted = False
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        self._wait_end()

    def rest_killed(self) -> None:
        """End it as a crash does, and start it again only when told."""
        self._wanted = False
        self.kill()
        self._wait_end()

    def close(self) -> None:
        """End it for good."""
        self.rest()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(10)

    def says(self, text: bytes, *, since: int = 0) -> bool:
        """Whether its log has this text, and not from what was kept running before."""
        return self.log.exists() and text in self.log.read_bytes()[max(since, self._since) :]

    def _wait_end(self) -> None:
        process = self._process
        if process is None:
            return
        try:
            process.wait(_TERM_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _keep(self) -> None:
        while self._thread is not None:
            time.sleep(_LOOK_SECONDS)
            if self._wanted and not self.is_alive:
                self._say(f"ended with {self._process and self._process.returncode}")
                time.sleep(RESTART_SECONDS)
                with self._lock:
                    if self._wanted and not self.is_alive:
                        self._spawn()

    def _spawn(self) -> None:
        self.starts += 1
        self._say(f"start {self.starts}")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        partial = self._pid_file.with_suffix(".new")
        partial.write_text(str(self._process.pid))
        partial.replace(self._pid_file)

    def _say(self, text: str) -> None:
        with self.log.open("a") as log:
            log.write(f"--- keeper {time.strftime('%H:%M:%S')}: {text}\n")
