"""The agent's own use of CPU and memory, in the shape of Dagster's AgentUtilizationMetrics.

Read from the control group of the agent's process, as ``dagster/_utils/container.py`` reads that of
a container; what the kernel does not show is None there as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Metrics = dict[str, object]
Value = TypeVar("Value", int, float)


class Utilization:
    """Measures, and remembers the last measurement: two of them make a rate."""

    def __init__(
        self, root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
    ) -> None:
        self._root = root
        self._membership = membership
        self._last_usage: float | None = None
        self._last_at: float | None = None

    def measure(self, now: float, *, requests: int) -> Metrics:
        """Return the metrics; ``requests`` is how many are worked on. Reads files: it may block."""
        is_v2 = (self._root / "cgroup.controllers").exists()
        measured = self._version_2() if is_v2 else self._version_1()
        usage = measured["cpu_usage"]
        version = "V2" if is_v2 else "V1"
        container: Metrics = {
            "num_allocated_cores": os.cpu_count(),
            **measured,
            "cgroup_version": None if usage is None else version,
            "measurement_timestamp": now,
            "previous_cpu_usage": self._last_usage,
            "previous_measurement_timestamp": self._last_at,
        }
        self._last_usage, self._last_at = usage, now
        return {
            "container_utilization": container,
            "request_utilization": {
                # Requests are tasks here, not threads: there is no limit to be near of.
                "max_concurrent_requests": None,
                "num_running_requests": requests,
                "num_queued_requests": 0,
            },
            "resource_limits": {},
        }

    def _version_2(self) -> dict[str, float | None]:
        group = self._group("")
        quota, _, period = (_text(group / "cpu.max") or "").partition(" ")
        usage = _field(group / "cpu.stat", "usage_usec")
        return {
            "cpu_usage": None if usage is None else usage / 1e6,
            "cpu_cfs_quota_us": _number(quota, float),
            "cpu_cfs_period_us": _number(period, float),
            "memory_usage": _working_set(group / "memory.current", group, "inactive_file"),
            "memory_limit": _number(_text(group / "memory.max"), int),
        }

    def _version_1(self) -> dict[str, float | None]:
        cpu, memory = self._group("cpuacct"), self._group("memory")
        quota = self._group("cpu")
        usage = _number(_text(cpu / "cpuacct.usage"), float)
        return {
            "cpu_usage": None if usage is None else usage / 1e9,
            "cpu_cfs_quota_us": _number(_text(quota / "cpu.cfs_quota_us"), float),
            "cpu_cfs_period_us": _number(_text(quota / "cpu.cfs_period_us"), float),
            "memory_usage": _working_set(
                memory / "memory.usage_in_bytes", memory, "total_inactive_file"
            ),
            "memory_limit": _number(_text(memory / "memory.limit_in_bytes"), int),
        }

    def _group(self, controller: str) -> Path:
        """Return the directory of our control group; in a container it is mounted as the root."""
        root = self._root / controller
        for line in (_text(self._membership) or "").splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                own = root / path.lstrip("/")
                return own if own.is_dir() else root
        return root


def _working_set(usage: Path, group: Path, inactive: str) -> int | None:
    """Memory in use without the file cache that the kernel drops on demand."""
    used = _number(_text(usage), int)
    cache = _field(group / "memory.stat", inactive)
    return None if used is None or cache is None else max(used - cache, 0)


def _field(path: Path, name: str) -> int | None:
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return _number(value, int)
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _number(text: str | None, kind: Callable[[str], Value]) -> Value | None:
    try:
        return kind(text or "")
    except ValueError:
        return None  # "max": no limit
