"""What a job needs of a partition and its nodes, from its options: pure figures.

Source: sbatch(1). Times in seconds, memory in bytes; infinite is what has no limit (``time=0``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpc_agent.jobs.options import Setting
from hpc_agent.jobs.options_demand import Demand, size
from hpc_agent.slurm.hostlist import expand

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_COUNT = re.compile(r"(\d+)([KMGT]?)")
_COMMA = re.compile(r",(?![^(]*\))")
_DETAILS = re.compile(r"\([^)]*\)")  # the sockets or devices of a node's GRES

Gres = Mapping[str, int]
"""Counts by name and type: ``gpu`` of any type, ``gpu:a100``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a job asks for; of a task, of each node, of all of them.

    ``seconds`` None: the partition's default holds. ``hosts`` None: any.
    """

    seconds: float | None = None
    least_nodes: int = 1
    most_nodes: int = 1
    tasks: int = 1
    tasks_per_node: int | None = None
    cpus_per_task: int = 1
    cpus: int = 1
    memory: float = 0.0
    memory_per_node: float = 0.0
    memory_per_cpu: float = 0.0
    memory_per_gpu: float = 0.0
    cpus_per_gpu: int = 0
    gpus: int = 0
    gres_per_node: Gres = field(default_factory=dict)
    gres_of_job: Gres = field(default_factory=dict)
    gres_per_task: Gres = field(default_factory=dict)
    constraint: str = ""
    hosts: frozenset[str] | None = None
    excluded: frozenset[str] = frozenset()
    account: str = ""
    qos: str = ""
    reservation: str = ""

    @property
    def gpu_kinds(self) -> list[str]:
        """The names under which GPUs are asked for."""
        asked = {**self.gres_of_job, **self.gres_per_task, **self.gres_per_node}
        return [name for name in asked if _is_kind(name, "gpu")]

    @property
    def gpus_per_node(self) -> int:
        """How many GPUs each node must have."""
        return count_of(self.gres_per_node, "gpu")

    @property
    def gpus_of_job(self) -> int:
        """How many GPUs the nodes must have together, whichever has them."""
        return sum(self.gres_of_job.values())


def need_of(settings: Sequence[Setting]) -> Need:
    """Return what a job with these options needs. Raises ValueError where that cannot be known."""
    chosen = {setting.option: setting.value for setting in settings}
    demand = Demand(settings)
    tasks = _tasks(chosen)
    gpus = int(demand.gpus().value)
    least, most = _nodes(chosen, tasks=tasks, gpus=gpus)
    time, memory = demand.time(), demand.mem()
    cpus_per_task = _integer(chosen, "cpus-per-task") or 1
    per_gpu = _integer(chosen, "cpus-per-gpu")
    return Need(
        seconds=time.value if time is not None else None,
        least_nodes=least,
        most_nodes=most,
        tasks=tasks,
        tasks_per_node=_integer(chosen, "ntasks-per-node") or None,
        cpus_per_task=cpus_per_task,
        cpus=max(tasks * cpus_per_task, gpus * per_gpu),
        memory=memory.value if memory is not None and math.isfinite(memory.value) else 0.0,
        memory_per_node=_size(chosen, "mem"),
        memory_per_cpu=_size(chosen, "mem-per-cpu"),
        memory_per_gpu=_size(chosen, "mem-per-gpu"),
        cpus_per_gpu=per_gpu,
        gpus=gpus,
        gres_per_node=_most(_gpus(chosen.get("gpus-per-node", "")), gres(chosen.get("gres", ""))),
        gres_of_job=_gpus(chosen.get("gpus", "")),
        gres_per_task=_gpus(chosen.get("gpus-per-task", "")),
        constraint=chosen.get("constraint", ""),
        hosts=expand(chosen["nodelist"]) if "nodelist" in chosen else None,
        excluded=expand(chosen.get("exclude", "")),
        account=chosen.get("account", ""),
        qos=chosen.get("qos", ""),
        reservation=chosen.get("reservation", ""),
    )


def gres(text: str) -> dict[str, int]:
    """Read ``gpu:a100:2(S:0-1),nvme:1``, of an option or of a node; a name alone is one of it."""
    found: dict[str, int] = {}
    for part in _COMMA.split(text):
        words = re.split("[:=]", _DETAILS.sub("", part).removeprefix("gres/"))
        match = _COUNT.fullmatch(words[-1].upper()) if len(words) > 1 else None
        number = int(match[1]) << (10 * " KMGT".index(match[2] or " ")) if match else 1
        name = ":".join((words[:-1] if match else words)[:2])
        if name and number:
            found[name] = found.get(name, 0) + number
    return found


def count_of(there: Gres, name: str) -> int:
    """Return how many there are of ``gpu:a100``, or of ``gpu`` of any type."""
    if ":" in name:
        return there.get(name, 0)
    return sum(count for each, count in there.items() if _is_kind(each, name))


def _tasks(chosen: Mapping[str, str]) -> int:
    nodes = _RANGE.fullmatch(chosen.get("nodes", "1"))
    if nodes is None:
        raise ValueError(f"not a number of nodes: {chosen['nodes']!r}")
    per_node = _integer(chosen, "ntasks-per-node") or 1
    return _integer(chosen, "ntasks") or int(nodes[1]) * per_node


def _nodes(chosen: Mapping[str, str], *, tasks: int, gpus: int) -> tuple[int, int]:
    """Return the least and the most nodes; without a number Slurm spreads tasks and GPUs."""
    match = _RANGE.fullmatch(chosen.get("nodes", ""))
    if match is not None:
        return int(match[1]), int(match[2] or match[1])
    per_node = _integer(chosen, "ntasks-per-node")
    least = math.ceil(tasks / per_node) if per_node else 1
    return least, max(least, tasks, gpus if "gpus" in chosen else 1)


def _gpus(text: str) -> dict[str, int]:
    """Read ``4`` or ``a100:2,v100:1``."""
    return gres(",".join(f"gpu:{part}" for part in text.split(",") if part))


def _is_kind(name: str, kind: str) -> bool:
    return name.partition(":")[0] == kind


def _most(one: Gres, other: Gres) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}


def _size(chosen: Mapping[str, str], option: str) -> float:
    return size(chosen[option]) if option in chosen else 0.0


def _integer(chosen: Mapping[str, str], option: str) -> int:
    return int(chosen.get(option) or 0)
