"""Limits count all processes of a job."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from hpc_agent.node.descendants import descendants
from hpc_agent.node.limits import Limits

# The parent's child is the one that holds 80 MiB.
HOLDER = """
import subprocess, sys
code = "data = bytearray(80 << 20); print('ready', flush=True); input()"
subprocess.run([sys.executable, "-c", code])
"""


Family = Callable[[], list[int]]


@pytest.fixture
def family() -> Iterator[Family]:
    """A process with a descendant that holds 80 MiB."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield lambda: [process.pid, *descendants(process.pid)]
    process.communicate(b"\n", timeout=30)


def test_family_below_its_limits_goes_on(family: Family) -> None:
    """Nothing is said of it."""
    limits = Limits(400, 10)
    assert not limits.are_exceeded(family)
    assert limits.verdict is None


def test_memory_of_descendants_counts(family: Family) -> None:
    """The verdict names use and limit."""
    limits = Limits(64)
    assert limits.are_exceeded(family)
    assert limits.out_of_memory
    assert limits.verdict is not None
    assert "its limit is 64 MiB" in limits.verdict


def test_processes_are_counted(family: Family) -> None:
    """The child is one of them."""
    limits = Limits(None, 1)
    assert limits.are_exceeded(family)
    assert limits.too_many
    assert limits.verdict == "it had 2 processes, and its limit is 1"


def test_processes_that_are_gone_use_nothing() -> None:
    """No error, whatever were their numbers."""
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    assert not Limits(1).are_exceeded(lambda: [process.pid])
