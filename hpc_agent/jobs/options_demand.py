"""How much a job asks for at most, from its options: time, nodes, CPUs, memory, GPUs.

Source: sbatch(1). All amounts are of the whole job: seconds, counts, bytes. What sbatch leaves
without a limit (``time=0``, ``mem=0``, ``exclusive``) is infinite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpc_agent.jobs.options import Setting
from hpc_agent.slurm.values import parse_duration, parse_memory

_WHOLE_NODES = frozenset({"true", "topo"})
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_BRACKETS = re.compile(r"\[([^\]]*)\]")
_HOSTS = re.compile(r"[^,\[]*(?:\[[^\]]*\][^,\[]*)+|[^,]+")
_GPU_SOURCES = ("gpus", "gpus-per-node", "gpus-per-task", "gres")


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount, and the settings it comes from."""

    value: float
    settings: tuple[Setting, ...] = ()


def seconds(text: str) -> float:
    """Return the seconds of a time limit; none at all and zero are infinite. Raises ValueError."""
    return parse_duration(text) or math.inf


def size(text: str) -> float:
    """Return the bytes of ``4G``, or of a number of megabytes. Raises ValueError."""
    found = parse_memory(text)
    if found is None:
        raise ValueError(f"not an amount of memory: {text!r}")
    return found


class Demand:
    """What the options of a job come to. Each amount raises ValueError where it cannot be read."""

    def __init__(self, settings: Sequence[Setting]) -> None:
        self._settings: Mapping[str, Setting] = {setting.option: setting for setting in settings}

    def time(self) -> Amount | None:
        """Return the time limit; None when the partition's own holds."""
        setting = self._settings.get("time")
        return Amount(seconds(setting.value), (setting,)) if setting is not None else None

    def nodes(self) -> Amount:
        """Return the most nodes. Without a number, Slurm may spread tasks over as many nodes."""
        setting = self._settings.get("nodes")
        if setting is not None:
            match = _RANGE.fullmatch(setting.value)
            if match is None:
                raise ValueError(f"not a number of nodes: {setting.value!r}")
            return Amount(int(match[2] or match[1]), (setting,))
        value = max(self._number("ntasks"), self._listed_nodes())
        return Amount(value, self._those("ntasks", "nodelist"))

    def cpus(self) -> Amount:
        """Return the most CPUs that tasks and GPUs bring; whole nodes have no number."""
        exclusive = self._settings.get("exclusive")
        if exclusive is not None and exclusive.value in _WHOLE_NODES:
            return Amount(math.inf, (exclusive,))
        value = max(
            self._tasks() * self._number("cpus-per-task"),
            self.gpus().value * self._number("cpus-per-gpu", 0),
        )
        names = ("cpus-per-task", "cpus-per-gpu", "ntasks", "ntasks-per-node", "nodes")
        return Amount(value, self._those(*names))

    def mem(self) -> Amount | None:
        """Return the memory; None when the partition's default holds."""
        each = {"mem": self.nodes, "mem-per-cpu": self.cpus, "mem-per-gpu": self.gpus}
        for name, count in each.items():
            if name in self._settings:
                units = count()
                one = size(self._settings[name].value) or math.inf
                value = one * units.value if units.value else 0.0
                return Amount(value, (self._settings[name], *units.settings))
        return None

    def gpus(self) -> Amount:
        """Return the GPUs, by whichever option they are asked for."""
        if "gpus-per-socket" in self._settings:
            raise ValueError("gpus-per-socket says no number; use gpus or gpus-per-node")
        value = max(
            _gpus(self._text("gpus")),
            _gpus(self._text("gpus-per-node")) * self.nodes().value,
            _gpus(self._text("gpus-per-task")) * self._tasks(),
            _gpus_of_gres(self._text("gres")) * self.nodes().value,
        )
        multipliers = ("nodes", "ntasks", "ntasks-per-node") if value else ()
        return Amount(value, self._those(*_GPU_SOURCES, *multipliers))

    def _tasks(self) -> float:
        nodes = self.nodes().value
        return max(self._number("ntasks"), nodes * self._number("ntasks-per-node"))

    def _listed_nodes(self) -> int:
        words = _HOSTS.findall(self._text("nodelist"))
        return sum(
            math.prod(_indices(inside) for inside in _BRACKETS.findall(word)) for word in words
        )

    def _number(self, option: str, default: int = 1) -> int:
        return int(self._text(option) or default)

    def _text(self, option: str) -> str:
        setting = self._settings.get(option)
        return setting.value if setting else ""

    def _those(self, *names: str) -> tuple[Setting, ...]:
        return tuple(self._settings[name] for name in names if name in self._settings)


def _indices(text: str) -> int:
    """Return how many names ``01-04,7`` stands for. Raises ValueError."""
    count = 0
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"not a list of nodes: [{text}]")
        count += max(1, int(match[2] or match[1]) - int(match[1]) + 1)
    return count


def _gpus(text: str) -> int:
    """Return the sum of ``4`` or ``a100:2,v100:1``. Raises ValueError."""
    return sum(int(part.rpartition(":")[2]) for part in text.split(",") if part)


def _gpus_of_gres(text: str) -> int:
    """Return the GPUs in a list of GRES: ``gpu`` and ``gpu:a100`` are one. Raises ValueError."""
    total = 0
    for part in text.split(","):
        words = re.split("[:=]", part.removeprefix("gres/").removeprefix("gres:"))
        if words[0].split("/")[0] == "gpu":
            if re.fullmatch(r"\d+[A-Za-z]", words[-1]):  # 1K; a MIG type is 1g.5gb
                raise ValueError(f"not a number of GPUs: {part!r}")
            total += int(words[-1]) if words[-1].isdigit() else 1
    return total
