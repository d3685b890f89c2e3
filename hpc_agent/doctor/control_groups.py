"""Limits of the control groups that this process is in, version 2 and version 1 (cgroups(7)).

Standard library only, Python 3.8+: the probe job takes it along.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# Version 1 has no word for "unlimited": it is the largest multiple of the page size below 2**63.
_NO_LIMIT = 1 << 60


def lowest_memory(root: Path = Path("/")) -> int | None:
    """Return the lowest memory limit in bytes, None without one; ``root`` is the machine's."""
    modern = [_words(group / "memory.max")[:1] for group in _unified(root)]
    older = [_words(group / "memory.limit_in_bytes")[:1] for group in _version_1(root, "memory")]
    limits = [int(words[0]) for words in (*modern, *older) if words and words[0].isdigit()]
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def lowest_cpus(root: Path = Path("/")) -> float | None:
    """Return the lowest quota in CPUs, None without one."""
    modern = [_words(group / "cpu.max") for group in _unified(root)]
    older = [
        _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        for group in _version_1(root, "cpu")
    ]
    pairs = [words for words in (*modern, *older) if len(words) == 2 and words[0].isdigit()]
    return min((int(quota) / int(period) for quota, period in pairs), default=None)


def _unified(root: Path) -> Iterator[Path]:
    """Yield the groups of version 2, inmost first."""
    for number, _, path in _memberships(root):
        if number == "0":
            yield from _upwards(root / "sys/fs/cgroup", path)


def _version_1(root: Path, controller: str) -> Iterator[Path]:
    for _, controllers, path in _memberships(root):
        if controller in controllers.split(","):
            yield from _upwards(root / "sys/fs/cgroup" / controller, path)


def _memberships(root: Path) -> Iterator[tuple[str, str, str]]:
    """Yield hierarchy, controllers and path of each line of /proc/self/cgroup."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        yield number, controllers, path


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    group = mount / path.lstrip("/")
    yield group
    yield from (parent for parent in group.parents if mount in (parent, *parent.parents))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()
