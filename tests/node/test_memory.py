"""The memory limit of a child counts its whole process group."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from hpc_agent.node.memory import MemoryLimit

# The parent's child is the one that holds 80 MiB.
HOLDER = """
import subprocess, sys
code = "data = bytearray(80 << 20); print('ready', flush=True); input()"
subprocess.run([sys.executable, "-c", code])
"""


@pytest.fixture
def group() -> Iterator[int]:
    """A process group with a descendant that holds 80 MiB."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process.pid
    process.communicate(b"\n", timeout=30)


def test_group_below_its_limit_goes_on(group: int) -> None:
    """Nothing is said of it."""
    limit = MemoryLimit(400, group)
    assert not limit.is_exceeded()
    assert limit.verdict is None


def test_descendants_count(group: int) -> None:
    """The verdict names use and limit."""
    limit = MemoryLimit(64, group)
    assert limit.is_exceeded()
    assert limit.verdict is not None
    assert "its limit is 64 MiB" in limit.verdict


def test_group_that_is_gone_uses_nothing() -> None:
    """No error, whatever was its number."""
    process = subprocess.Popen(["/bin/true"], start_new_session=True)
    process.wait()
    assert not MemoryLimit(1, process.pid).is_exceeded()
