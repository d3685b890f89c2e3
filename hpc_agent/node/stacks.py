"""What each Python process of a job is doing: ``python3 node.pyz --stacks KEY``, on its node.

By py-spy where it is installed for the process's own Python, or on PATH; else by what the kernel
says of the process. Nothing is stopped for longer than a moment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from typing import Iterator, List, Optional

_DUMP_SECONDS = 30
_KERNEL = ("status", "wchan", "syscall")
_STATUS_LINES = ("State", "VmRSS", "Threads")


def run(key: str) -> int:
    """Print the stacks of a job's processes; 1 when it has none here."""
    found = list(_processes_of(key))
    for pid in found:
        _write("==> process %d: %s\n" % (pid, " ".join(_command(pid))[:300]))
        _write(_stack(pid) or _kernel_view(pid))
    if not found:
        _write("no process of %s on %s\n" % (key, os.uname().nodename))
    return 0 if found else 1


def _processes_of(key: str) -> Iterator[int]:
    """Yield the processes that have the token of this job in their environment."""
    mark = b"HPC_AGENT_JOB_TOKEN=%s:" % key.encode()
    for name in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        with contextlib.suppress(OSError), open("/proc/%s/environ" % name, "rb") as file:
            if any(part.startswith(mark) for part in file.read().split(b"\0")):
                yield int(name)


def _command(pid: int) -> List[str]:
    with contextlib.suppress(OSError), open("/proc/%d/cmdline" % pid, "rb") as file:
        return [part.decode(errors="replace") for part in file.read().split(b"\0") if part]
    return []


def _py_spy(pid: int) -> Optional[str]:
    words = _command(pid)
    beside = os.path.join(os.path.dirname(words[0]), "py-spy") if words else ""
    return beside if os.access(beside, os.X_OK) else shutil.which("py-spy")


def _stack(pid: int) -> str:
    program = _py_spy(pid)
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, "dump", "--pid", str(pid)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_DUMP_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "py-spy: %s\n" % error
    text = done.stdout.decode(errors="replace")
    # It is no Python, or its Python is one that py-spy does not know.
    return text if done.returncode == 0 else "%s%s" % (text, _kernel_view(pid))


def _kernel_view(pid: int) -> str:
    lines = []
    for name in _KERNEL:
        with contextlib.suppress(OSError):
            with open("/proc/%d/%s" % (pid, name), errors="replace") as file:
                text = file.read()
            if name == "status":
                lines += [line for line in text.splitlines() if line.startswith(_STATUS_LINES)]
            elif text.strip(" 0\n"):
                lines.append("%s: %s" % (name, text.strip()))
    return "".join("%s\n" % line for line in lines)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
