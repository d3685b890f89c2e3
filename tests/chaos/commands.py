"""Slurm's commands as the agent finds them: wrappers that a fault may replace."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo")

_WRAPPER = """#!/bin/sh
if [ -x {fault} ]; then exec {fault} {real} "$@"; fi
exec {real} "$@"
"""
_FAULT = """#!/bin/sh
# $REAL is the true command, $AGENT the file with the agent's pid. once NAME: true the first time.
REAL=$1; shift
AGENT={agent}
struck() {{ : > {struck}; }}
once() {{ mkdir "{fault}.$1" 2>/dev/null; }}
kill_agent() {{ struck; kill -9 "$(cat $AGENT)"; }}
"""


class Commands:
    """A directory of wrappers for ``scheduler.bin_dir``."""

    def __init__(self, directory: Path, *, real: Path, agent_pid: Path) -> None:
        """``real`` is where Slurm's own are; ``agent_pid`` is a file that names the agent."""
        self.bin = directory / "bin"
        self._faults = directory / "faults"
        self._agent_pid = agent_pid
        for path in (self.bin, self._faults):
            path.mkdir(parents=True)
        for name in COMMANDS:
            text = _WRAPPER.format(fault=self._faults / name, real=real / name)
            _executable(self.bin / name, text)

    @contextlib.contextmanager
    def replaced(self, script: str, *names: str) -> Iterator[Callable[[], bool]]:
        """Replace commands by a script of sh(1) for a while; yields whether it has struck.

        Before the script ``REAL`` and the functions ``struck``, ``once`` and ``kill_agent`` are
        defined. What takes no count has struck as soon as it was called.
        """
        self._count += 1
        struck = self._faults / f"struck-{self._count}"
        for name in names:
            # Of a name of its own each time: a call that hangs goes on reading the old one.
            fault = self._faults / f"{name}-{self._count}"
            head = _FAULT.format(agent=self._agent_pid, struck=struck, fault=fault)
            _executable(fault, f"{head}{script}\n")
            link = self._faults / f"{name}.new"
            link.symlink_to(fault)
            link.replace(self._faults / name)
        try:
            yield struck.exists
        finally:
            for name in names:
                (self._faults / name).unlink(missing_ok=True)

    _count = 0


def _executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
