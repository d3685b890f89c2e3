"""Daemons as processes: start them detached, recognise them again, and end no other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.05


class ClusterError(Exception):
    """Something an administrator must see: what, where, what to do."""


class NoVersionError(ClusterError):
    """A version of Slurm cannot be had here: no mirror, no apt, another system."""


@dataclass(frozen=True)
class Daemon:
    """One daemon: what to run, where its pid is recorded, and how one sees that it serves."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    record: Path
    output: Path
    ready: Callable[[], bool]


def identity(pid: int) -> str | None:
    """Return what makes a pid unique (boot and start time), or None when it is dead or a zombie.

    Source: proc(5), /proc/PID/stat fields 3 (state) and 22 (starttime).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def running_pid(record: Path) -> int | None:
    """Return the pid in a record while that very process lives."""
    try:
        content = json.loads(record.read_text())
    except (OSError, ValueError):
        return None
    pid, was = int(content["pid"]), content["identity"]
    # Without an identity the process had died before it could be looked at.
    return pid if was is not None and identity(pid) == was else None


def listens(record: Path, port: int) -> bool:
    """Return whether the recorded process runs where something listens on this TCP port.

    Asked without a connection, which would not get into another network namespace. Source: proc(5),
    /proc/net/tcp: local address in hexadecimal, and state 0A, which is LISTEN.
    """
    pid = running_pid(record)
    tables = [Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables if table.exists() for line in table.open()]
    return any(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)


def start(daemon: Daemon, *, seconds: float) -> bool:
    """Start a daemon unless it runs, and wait until it serves; return whether it was started."""
    started = running_pid(daemon.record) is None
    if started:
        _spawn(daemon)
    deadline = time.monotonic() + seconds
    while not daemon.ready():
        if running_pid(daemon.record) is None:
            raise ClusterError(f"{daemon.name} ended while starting.\n{_last_lines(daemon)}")
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{daemon.name} does not answer after {seconds:.0f} s.\n{_last_lines(daemon)}"
            )
        time.sleep(POLL_SECONDS)
    return started


def stop(record: Path, *, seconds: float) -> bool:
    """End the recorded process, by force after ``seconds``; return whether there was one."""
    pid = running_pid(record)
    if pid is not None:
        end([pid], seconds=seconds)
    record.unlink(missing_ok=True)
    return pid is not None


def end(pids: Sequence[int], *, seconds: float) -> None:
    """Send SIGTERM to processes, then SIGKILL to those that remain after ``seconds``."""
    known = {pid: identity(pid) for pid in pids}
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = [pid for pid, was in known.items() if was and identity(pid) == was]
        for pid in alive:
            _send(pid, number)
        deadline = time.monotonic() + seconds
        while any(identity(pid) == known[pid] for pid in alive) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    _CHILDREN[:] = [child for child in _CHILDREN if child.poll() is None]


def with_environment(entries: Sequence[str]) -> Iterator[int]:
    """Yield the pids whose environment contains every one of these ``NAME=value`` entries."""
    wanted = {entry.encode() for entry in entries}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted.issubset(environment):
            yield int(directory.name)


def _spawn(daemon: Daemon) -> None:
    with daemon.output.open("ab") as output:
        process = subprocess.Popen(
            list(daemon.argv),
            env=dict(daemon.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
        )
    partial = daemon.record.with_suffix(".new")
    partial.write_text(json.dumps({"pid": process.pid, "identity": identity(process.pid)}))
    partial.replace(daemon.record)
    _CHILDREN.append(process)


# Kept so that children which die while we wait are reaped by Popen instead of warning at exit.
_CHILDREN: list[subprocess.Popen[bytes]] = []


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _last_lines(daemon: Daemon, count: int = 15) -> str:
    try:
        lines = daemon.output.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        lines = []
    return "\n".join([f"The end of {daemon.output}:", *(f"  {line}" for line in lines)])
