"""A machine that its own systemd has booted, in a container of systemd-nspawn."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.machines.root import NoMachineError, make_root

_BOOT_SECONDS = 120
_STOP_SECONDS = 60
_NEEDED = ("debootstrap", "systemd-nspawn", "nsenter")


@contextmanager
def booted_machine() -> Iterator[Machine]:
    """Boot a machine, and take it away again. Raises NoMachineError."""
    if os.geteuid() != 0:
        raise NoMachineError("a machine of its own needs root")
    if missing := [name for name in _NEEDED if shutil.which(name) is None]:
        raise NoMachineError(f"not installed: {', '.join(missing)}")
    # Not below pytest's tmp_path, which is kept, gigabytes that they are.
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="hpc-agent-machine-") as directory:
        root = Path(directory) / "root"
        root.mkdir()
        make_root(root)
        machine = Machine(root, log=Path(directory) / "console.log")
        try:
            machine.wait_booted()
            yield machine
        finally:
            machine.close()


class Machine:
    """Namespaces of processes and mounts are its own; the network is this machine's."""

    def __init__(self, root: Path, *, log: Path) -> None:
        self.root = root
        self._log = log
        self._nspawn = self._started()

    def run(self, script: str, *, user: str = "root", seconds: float = 300) -> str:
        """Run lines of shell in a login of a user; return what they print, on both streams.

        They must end well: AssertionError otherwise, with the output.
        """
        done = self._enter("su", "--login", user, "--command", script, seconds=seconds)
        assert done.returncode == 0, f"exit code {done.returncode} of: {script}\n{done.stdout}"
        return done.stdout

    def wait_booted(self) -> None:
        """Wait until systemd has started what is to start. Raises NoMachineError."""
        deadline = time.monotonic() + _BOOT_SECONDS
        while self._state() not in {"running", "degraded"}:
            if self._nspawn.poll() is not None or time.monotonic() > deadline:
                last = self._log.read_text(errors="replace").strip().splitlines()[-3:]
                raise NoMachineError(f"systemd does not boot in systemd-nspawn: {' / '.join(last)}")
            time.sleep(0.2)

    def reboot(self) -> None:
        """Shut it down, and wait until it is up again."""
        self._enter("systemctl", "reboot", seconds=_STOP_SECONDS)
        # With --keep-unit it leaves the second boot to whoever has started it.
        self._nspawn.wait(_STOP_SECONDS)
        self._nspawn = self._started()
        self.wait_booted()

    def close(self) -> None:
        """Shut it down."""
        self._nspawn.send_signal(signal.SIGTERM)
        try:
            self._nspawn.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()  # and with it all that is in its namespace of processes
            self._nspawn.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        # Nobody needs to know it: there may be no systemd here that could register it.
        argv = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot"]
        root = self.root
        with self._log.open("ab") as console:
            return subprocess.Popen(
                [
                    *argv,
                    f"--directory={root}",
                    f"--machine=hpc-{os.getpid()}",
                    "--console=read-only",
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )

    def _state(self) -> str:
        done = self._enter("systemctl", "is-system-running", seconds=20)
        return done.stdout.strip()

    def _enter(self, *argv: str, seconds: float) -> subprocess.CompletedProcess[str]:
        init = self._init()
        if init is None:
            return subprocess.CompletedProcess(argv, 1, "it is not up")
        into = ["nsenter", f"--target={init}", "--all", "--root", "--wd=/"]
        clean = ["env", "--ignore-environment", "PATH=/usr/sbin:/usr/bin", "LANG=C.UTF-8"]
        return subprocess.run(
            [*into, *clean, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=seconds,
        )

    def _init(self) -> int | None:
        """Return the process here that is the first one there."""
        try:
            found = psutil.Process(self._nspawn.pid).children(recursive=True)
            for each in found:
                if Path(f"/proc/{each.pid}/comm").read_text() == "systemd\n" and _is_first(
                    each.pid
                ):
                    return each.pid
        except (psutil.Error, OSError):  # it has just gone
            pass
        return None


def _is_first(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [each for each in status.splitlines() if each.startswith("NSpid:")]
    return len(line.split()) > 2 and line.split()[-1] == "1"


def wait_until(condition: Callable[[], bool], *, what: str, seconds: float = 60) -> None:
    """Poll a condition; fail with ``what`` when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.5)


def quoted(*words: object) -> str:
    """Return a command line."""
    return shlex.join(map(str, words))
