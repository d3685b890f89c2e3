"""Run a program where link(2) is refused, as file systems without hard links refuse it.

``python tests/no_links.py CODE``: a seccomp(2) filter answers link and linkat with EPERM.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import subprocess
import sys
from pathlib import Path

_LINKS = {"x86_64": (86, 265), "aarch64": (37,)}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def run_without_links(code: str, *arguments: str) -> str:
    """Run some Python and return what it printed."""
    argv = [sys.executable, str(Path(__file__)), code, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_supported() -> bool:
    """Whether the numbers of the system calls are known here."""
    return platform.machine() in _LINKS


def _refuse_links() -> None:
    numbers = _LINKS[platform.machine()]
    filters = [(_LOAD, 0, 0, 0)]
    for left, number in enumerate(reversed(numbers)):
        filters.insert(1, (_EQUALS, left + 1, 0, number))
    filters += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    code = b"".join(struct.pack("HBBI", *each) for each in filters)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(filters), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.create_string_buffer(program, len(program)), 0, 0),
    ):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    _refuse_links()
    source, *sys.argv[1:] = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parent.parent))
    exec(source)  # noqa: S102  (what a test gives)
