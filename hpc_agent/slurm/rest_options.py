"""Options of sbatch as job properties of slurmrestd, which does not read ``#SBATCH`` lines itself.

Up to v0.0.38 a property takes what sbatch's option takes (``slurm_process_option_data`` in
``src/common/slurm_opt.c`` of 22.05). Since v0.0.39 each is a field of ``job_desc_msg``, which
``slurm_opt_create_job_desc`` fills in for sbatch: what it does with a value is done here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpc_agent.slurm.values import parse_duration, parse_memory

Convert = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Property:
    """The property that an option becomes, and how its value is converted.

    ``convert`` raises ValueError for what cannot be, and returns None for what is left out.
    Several options may fill one property: lists and texts with commas are joined.
    """

    name: str
    convert: Convert = str


Table = Mapping[str, tuple[Property, ...]]


class UntranslatableError(ValueError):
    """An option that slurmrestd has no property for, or a value that it does not take."""


def translate(options: Mapping[str, str], table: Table) -> dict[str, Any]:
    """Return the properties of options by long name. Raises UntranslatableError, naming one."""
    properties: dict[str, Any] = {}
    for option, value in options.items():
        if option not in table:
            raise UntranslatableError(f"--{option}: slurmrestd has no such property")
        for each in table[option]:
            try:
                converted = each.convert(value)
            except ValueError as error:
                raise UntranslatableError(f"--{option}={value}: {error}") from None
            if converted is not None:
                properties[each.name] = _joined(properties.get(each.name), converted)
    return properties


def _joined(earlier: Any, value: Any) -> Any:
    if isinstance(earlier, list) and isinstance(value, list):
        return [*earlier, *value]
    if isinstance(earlier, str) and isinstance(value, str):
        return f"{earlier},{value}"
    return value


def _same(*names: str) -> dict[str, tuple[Property, ...]]:
    return {name: (Property(name.replace("-", "_")),) for name in names}


def _constant(value: Any) -> Convert:
    return lambda _: value


def _in(**values: Any) -> Convert:
    """Return the value of a word, in capital letters or not."""

    def convert(text: str) -> Any:
        if text.lower() not in values:
            raise ValueError(f"not one of {', '.join(values)}")
        return values[text.lower()]

    return convert


def _megabytes(text: str) -> int:
    size = parse_memory(text)
    if size is None:
        raise ValueError("not an amount of memory")
    # sbatch rounds up: str_to_mbytes().
    return -(-size >> 20)


def _listed(text: str) -> list[str]:
    return [text]


def _as_integer(name: str) -> tuple[Property, ...]:
    return (Property(name, int),)


def _open_mode(append: Any, truncate: Any) -> Convert:
    return _in(a=append, append=append, t=truncate, truncate=truncate)


# Common to all versions.
_COMMON: Table = {
    **_same("account", "array", "comment", "dependency", "licenses", "partition", "qos"),
    **_same("reservation", "wckey"),
    "mcs-label": (Property("mcs_label"),),
    "chdir": (Property("current_working_directory"),),
    "constraint": (Property("constraints"),),
    "core-spec": _as_integer("core_specification"),
    "cpus-per-task": _as_integer("cpus_per_task"),
    "error": (Property("standard_error"),),
    "hold": (Property("hold", _constant(value=True)),),
    "input": (Property("standard_input"),),
    "job-name": (Property("name"),),
    "mail-user": (Property("mail_user"),),
    "mincpus": _as_integer("minimum_cpus_per_node"),
    "nice": (Property("nice", lambda text: int(text or "100")),),
    "nodes": (Property("nodes"),),
    "ntasks": _as_integer("tasks"),
    "ntasks-per-core": _as_integer("tasks_per_core"),
    "ntasks-per-node": _as_integer("tasks_per_node"),
    "ntasks-per-socket": _as_integer("tasks_per_socket"),
    "output": (Property("standard_output"),),
    "requeue": (Property("requeue", _constant(value=True)),),
    "sockets-per-node": _as_integer("sockets_per_node"),
    "thread-spec": _as_integer("thread_specification"),
    "threads-per-core": _as_integer("threads_per_core"),
}


_WARNING = re.compile(r"B:USR1(@\d+)?", re.IGNORECASE)


def _signal_of_job(text: str) -> str | None:
    """Leave out the warning that the agent adds to each run: a job can do without.

    22.05 answers "Invalid SIGNAL specification" to whatever begins with ``B:``.
    """
    if _WARNING.fullmatch(text):
        return None
    if ":" in text and not text.upper().startswith("R:"):
        raise ValueError("slurmrestd 22.05 takes no B: but for USR1, which it leaves out")
    return text


OF_22_05: Table = {
    **_COMMON,
    **_same("deadline", "exclusive", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"),
    **_same("gres", "mail-type"),
    "begin": (Property("begin_time"),),
    "cores-per-socket": _as_integer("cores_per_socket"),
    "cpus-per-gpu": _as_integer("cpus_per_gpu"),
    "exclude": (Property("exclude_nodes"),),
    "exclusive": (Property("exclusive", lambda text: text or "exclusive"),),
    "mem": (Property("memory_per_node"),),
    "mem-per-cpu": (Property("memory_per_cpu"),),
    "mem-per-gpu": (Property("memory_per_gpu"),),
    # requeue: false has no effect there.
    "no-requeue": (Property("no_requeue", _constant(value=True)),),
    "nodelist": (Property("nodelist"),),
    "open-mode": (Property("open_mode", _open_mode("append", "truncate")),),
    "signal": (Property("signal", _signal_of_job),),
    "time": (Property("time_limit"),),
    "time-min": (Property("time_minimum"),),
    "tmp": (Property("temporary_disk_per_node"),),
}
"""v0.0.36 to v0.0.38."""

_SIGNAL = re.compile(r"(?:([BR]{1,2}):)?([A-Za-z0-9]+)(?:@(\d+))?", re.IGNORECASE)
_SIGNAL_SECONDS = 60
_MAIL = {
    "ARRAY_TASKS": ["ARRAY_TASKS"],
    "BEGIN": ["BEGIN"],
    "END": ["END"],
    "FAIL": ["FAIL"],
    "INVALID_DEPEND": ["INVALID_DEPENDENCY"],
    "NONE": [],
    "REQUEUE": ["REQUEUE"],
    "STAGE_OUT": ["STAGE_OUT"],
    "TIME_LIMIT": ["TIME=100%"],
    "TIME_LIMIT_50": ["TIME=50%"],
    "TIME_LIMIT_80": ["TIME=80%"],
    "TIME_LIMIT_90": ["TIME=90%"],
}
_ALL_MAIL = ["BEGIN", "END", "FAIL", "INVALID_DEPENDENCY", "REQUEUE", "STAGE_OUT"]


def _set(value: int) -> dict[str, Any]:
    return {"set": True, "number": value}


def _integer_set(text: str) -> dict[str, Any]:
    return _set(int(text))


def _megabytes_set(text: str) -> dict[str, Any]:
    return _set(_megabytes(text))


def _minutes(text: str) -> dict[str, Any]:
    seconds = parse_duration(text)
    if not seconds:
        return {"set": True, "infinite": True, "number": 0}
    # sbatch rounds up: time_str2mins().
    return _set(-(-seconds // 60))


def _mail_types(text: str) -> list[str]:
    found: list[str] = []
    for word in text.upper().split(","):
        if word != "ALL" and word not in _MAIL:
            raise ValueError(f"{word} is no event")
        found += _ALL_MAIL if word == "ALL" else _MAIL[word]
    return found


def _signal(part: str) -> Convert:
    def convert(text: str) -> Any:
        match = _SIGNAL.fullmatch(text)
        if match is None:
            raise ValueError("not [B:]SIGNAL[@SECONDS]")
        letters, name, seconds = match.groups()
        flags = {"B": "BATCH_JOB", "R": "RESERVATION_JOB"}
        parts = {
            "flags": [flags[letter] for letter in sorted((letters or "").upper())],
            "signal": name,
            "delay": _set(int(seconds) if seconds else _SIGNAL_SECONDS),
        }
        return parts[part]

    return convert


def _gpus(text: str) -> str:
    """``a100:2,v100:1`` as trackable resources: ``gres/gpu:a100:2,gres/gpu:v100:1``."""
    return ",".join(f"gres/gpu:{part}" for part in text.split(","))


def _gpus_per_task(text: str) -> str:
    """``a100:2`` as a trackable resource of tasks, which takes ``=``: ``gres/gpu:a100=2``."""
    parts = (part.rpartition(":") for part in text.split(","))
    return ",".join(f"gres/gpu{colon}{kind}={count}" for kind, colon, count in parts)


def _count(text: str) -> int:
    return sum(int(part.rpartition(":")[2]) for part in text.split(","))


def _gres(text: str) -> str:
    parts = (part.removeprefix("gres/").removeprefix("gres:") for part in text.split(","))
    return text if text.lower() == "none" else ",".join(f"gres/{part}" for part in parts)


def _flag(flag: str) -> tuple[Property, ...]:
    return (Property("flags", _constant([flag])),)


OF_DATA_PARSER: Table = {
    **_COMMON,
    **_same("deadline", "network", "prefer"),
    "acctg-freq": (Property("account_gather_frequency"),),
    "batch": (Property("batch_features"),),
    "bb": (Property("burst_buffer"),),
    "begin": (Property("begin_time"),),
    "contiguous": (Property("contiguous", _constant(value=True)),),
    "cpus-per-gpu": (Property("cpus_per_tres", lambda text: f"gres/gpu:{int(text)}"),),
    "distribution": (Property("distribution"),),
    "exclude": (Property("excluded_nodes", _listed),),
    "exclusive": (
        Property("shared", _in(**{"": ["none"]}, user=["user"], mcs=["mcs"], topo=["topo"])),
    ),
    "gpus": (Property("tres_per_job", _gpus),),
    "gpus-per-node": (Property("tres_per_node", _gpus),),
    "gpus-per-socket": (Property("tres_per_socket", _gpus),),
    "gpus-per-task": (
        Property("tres_per_task", _gpus_per_task),
        Property("tres_bind", lambda text: f"gres/gpu:per_task:{_count(text)}"),
    ),
    "gres": (Property("tres_per_node", _gres),),
    "gres-flags": (
        Property(
            "flags",
            _in(
                **{
                    "disable-binding": ["GRES_BINDING_DISABLED"],
                    "enforce-binding": ["GRES_BINDING_ENFORCED"],
                }
            ),
        ),
    ),
    "kill-on-invalid-dep": (
        Property("flags", _in(yes=["KILL_INVALID_DEPENDENCY"], no=["NO_KILL_INVALID_DEPENDENCY"])),
    ),
    "mail-type": (Property("mail_type", _mail_types),),
    "mem": (Property("memory_per_node", _megabytes_set),),
    "mem-per-cpu": (Property("memory_per_cpu", _megabytes_set),),
    "mem-per-gpu": (Property("memory_per_tres", lambda text: f"gres/gpu:{_megabytes(text)}"),),
    "no-requeue": (Property("requeue", _constant(value=False)),),
    "nodelist": (Property("required_nodes", _listed),),
    "open-mode": (Property("open_mode", _open_mode(["APPEND"], ["TRUNCATE"])),),
    "overcommit": (Property("overcommit", _constant(value=True)),),
    "oversubscribe": (Property("shared", _constant(["oversubscribe"])),),
    "priority": (Property("priority", _integer_set),),
    "reboot": (Property("reboot", _constant(value=True)),),
    "signal": (
        Property("kill_warning_flags", _signal("flags")),
        Property("kill_warning_signal", _signal("signal")),
        Property("kill_warning_delay", _signal("delay")),
    ),
    "spread-job": _flag("SPREAD_JOB"),
    "time": (Property("time_limit", _minutes),),
    "time-min": (Property("time_minimum", _minutes),),
    "tmp": (Property("temporary_disk_per_node", _megabytes),),
    "use-min-nodes": _flag("PREFER_MINIMUM_NODE_COUNT"),
    "wait-all-nodes": (Property("wait_all_nodes", _in(**{"0": False, "1": True})),),
}
"""v0.0.40 and later."""


def work_out_22_05(options: Mapping[str, str]) -> dict[str, Any]:
    """Return what sbatch works out from several options, and slurmrestd does not."""
    least = int(options.get("nodes", "1").partition("-")[0])
    if least > 1 and not {"ntasks", "ntasks-per-node"} & set(options):
        return {"tasks": least}
    nodes = _least_nodes(options)
    return {} if nodes is None else {"nodes": str(nodes)}


def work_out(options: Mapping[str, str]) -> dict[str, Any]:
    """Return what sbatch works out from several options, and slurmctld does not."""
    nodes = _least_nodes(options)
    return {} if nodes is None else {"minimum_nodes": nodes}


def _least_nodes(options: Mapping[str, str]) -> int | None:
    """Return how many nodes so many tasks need, of which each takes so many."""
    if "nodes" in options or not {"ntasks", "ntasks-per-node"} <= set(options):
        return None
    return -(-int(options["ntasks"]) // max(int(options["ntasks-per-node"]), 1))
