"""Limits count all processes of a job."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hpc_agent.node.descendants import descendants
from hpc_agent.node.limits import Limits, share_of

# The parent's child is the one that holds 80 MiB.
HOLDER = """
import subprocess, sys
code = "data = bytearray(80 << 20); print('ready', flush=True); input()"
subprocess.run([sys.executable, "-c", code])
"""
# Its children have what it has, and each has as much again where there is a word.
FORKS = """
import os, sys
data = b"x" * (80 << 20)
for _ in range(4):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        own = b"y" * (80 << 20) if len(sys.argv) > 1 else b""
        os.write(writing, b"!")
        os.read(0, 1)
        os._exit(0)
    os.close(writing)
    os.read(reading, 1)
print("ready", flush=True)
input()
"""
# Of Linux 6.18: a process of 80 MiB with four children that have them too.
ROLLUP = b"""55c37b6b5000-7fff5d792000 ---p 00000000 00:00 0                          [rollup]
Rss:               91336 kB
Pss:               18603 kB
Pss_Dirty:         17388 kB
Pss_Anon:          17388 kB
Pss_File:           1214 kB
Pss_Shmem:             0 kB
Shared_Clean:       5828 kB
"""
OLD_ROLLUP = ROLLUP.partition(b"Pss_Dirty")[0]

Family = Callable[[], list[int]]


@contextmanager
def running(*words: str) -> Iterator[Family]:
    """Have a program run that says when it is ready, and ends with its input."""
    process = subprocess.Popen(
        [sys.executable, "-c", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield lambda: [process.pid, *descendants(process.pid)]
    process.communicate(b"\n", timeout=30)


@pytest.fixture
def family() -> Iterator[Family]:
    """A process with a descendant that holds 80 MiB."""
    with running(HOLDER) as found:
        yield found


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


def test_memory_in_common_counts_once() -> None:
    """What a fork has left to five processes is not five times as much."""
    with running(FORKS) as family:
        assert not Limits(200).are_exceeded(family)
        limits = Limits(64)
        assert limits.are_exceeded(family)
        assert limits.out_of_memory


def test_memory_that_forks_have_taken_counts() -> None:
    """It is the family that has a limit, not each process."""
    with running(FORKS, "own") as family:
        assert Limits(300).are_exceeded(family)


def test_share_is_read_on_any_kernel() -> None:
    """An old one tells it with the share of files; there it is no more than all of the process."""
    assert share_of(ROLLUP, 86 << 20) == 17388 << 10
    assert share_of(OLD_ROLLUP, 86 << 20) == 18603 << 10
    assert share_of(OLD_ROLLUP, 1 << 20) == 1 << 20
    assert share_of(b"", 5) == 5


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
