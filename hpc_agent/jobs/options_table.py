"""The Slurm options that may be set: names, values, and why the others may not.

Source: sbatch(1) of 22.05 to 25.11. Names are those of sbatch without the dashes. A pattern admits
no white space, quotes, ``#`` or shell characters, so that no value can change a script.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_WORD = r"[A-Za-z0-9_.+-]+"
_WORDS = rf"{_WORD}(,{_WORD})*"
_NUMBER = r"[0-9]+"
_SIZE = r"[0-9]+([KMGTkmgt][Bb]?)?"
_SIZES = "megabytes, or a number with K, M, G or T"
_TRES = r"[A-Za-z0-9_.:/=+-]+(,[A-Za-z0-9_.:/=+-]+)*"
_LICENSES = r"[A-Za-z0-9_.:/=@+-]+(,[A-Za-z0-9_.:/=@+-]+)*"
_ADDRESS = r"[A-Za-z0-9_.+-]+(@[A-Za-z0-9.-]+)?"
_GPUS = rf"({_WORD}:)?[0-9]+(,{_WORD}:[0-9]+)*"
_GPU_FORM = "a number, or TYPE:NUMBER"
_HOSTS = r"[A-Za-z0-9_.,\[\]-]+"
_MOMENT = r"[A-Za-z0-9:/+.-]+"
_DEPENDENCY = r"(singleton|[a-z]+:[0-9]+(_[0-9]+)?(\+[0-9]+)?(:[0-9]+(_[0-9]+)?(\+[0-9]+)?)*)"
EXTRA_VALUE = r"[A-Za-z0-9_.,:/=@+-]+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option; ``form`` says in words what ``pattern`` admits.

    ``is_switch``: true and false are values too, and false means that it is not asked for.
    """

    name: str
    form: str
    example: str
    pattern: str = ""
    is_switch: bool = False


def _option(name: str, pattern: str, form: str, example: str) -> Option:
    return Option(name=name, pattern=pattern, form=form, example=example)


_DEPENDENCIES = rf"{_DEPENDENCY}([,?]{_DEPENDENCY})*"
_TABLE = (
    _option("account", _WORD, "a name", "physics"),
    _option("begin", _MOMENT, "a time as sbatch reads it", "now+1hour"),
    _option("constraint", r"[A-Za-z0-9_.:*&|,\[\]()+-]+", "features", "a100&nvlink"),
    _option("cpus-per-gpu", _NUMBER, "a number", "8"),
    _option("cpus-per-task", _NUMBER, "a number", "4"),
    _option("deadline", _MOMENT, "a time as sbatch reads it", "2030-01-31T18:00"),
    _option("dependency", _DEPENDENCIES, "conditions on jobs, by their ids", "afterok:4711"),
    _option("exclude", _HOSTS, "names of nodes", "n[01-04]"),
    Option(
        name="exclusive",
        pattern="user|mcs|topo",
        form="true, user, mcs or topo",
        example="user",
        is_switch=True,
    ),
    _option("gpus", _GPUS, _GPU_FORM, "a100:2"),
    _option("gpus-per-node", _GPUS, _GPU_FORM, "4"),
    _option("gpus-per-socket", _GPUS, _GPU_FORM, "1"),
    _option("gpus-per-task", _GPUS, _GPU_FORM, "1"),
    _option("gres", _TRES, "NAME[:TYPE][:NUMBER], for each node", "gpu:a100:2"),
    _option("licenses", _LICENSES, "NAME[@SERVER][:NUMBER], separated by commas", "matlab:1"),
    _option("mail-type", r"[A-Z_0-9]+(,[A-Z_0-9]+)*", "events", "FAIL,TIME_LIMIT_80"),
    _option(
        "mail-user",
        rf"{_ADDRESS}(,{_ADDRESS})*",
        "addresses, separated by commas",
        "me@example.org",
    ),
    _option("mem", _SIZE, f"{_SIZES}; of each node", "32G"),
    _option("mem-per-cpu", _SIZE, _SIZES, "4G"),
    _option("mem-per-gpu", _SIZE, _SIZES, "64G"),
    _option("nice", r"-?[0-9]+", "a number; higher is later", "100"),
    _option("nodelist", _HOSTS, "names of nodes", "n[01-04]"),
    _option("nodes", r"[0-9]+(-[0-9]+)?", "a number, or LEAST-MOST", "2"),
    _option("ntasks", _NUMBER, "a number", "16"),
    _option("ntasks-per-node", _NUMBER, "a number", "8"),
    _option("partition", _WORDS, "names, separated by commas", "gpu"),
    _option("qos", _WORD, "a name", "normal"),
    Option(name="requeue", form="true or false", example="true", is_switch=True),
    _option("reservation", _WORDS, "names, separated by commas", "maintenance-test"),
    _option("signal", r"([BR]{1,2}:)?[A-Za-z0-9]+(@[0-9]+)?", "[B:]SIGNAL[@SECONDS]", "B:USR1@60"),
    _option(
        "time",
        r"([0-9]+-)?[0-9]+(:[0-9]{1,2}){0,2}|(?i:infinite|unlimited)",
        "minutes, HOURS:MINUTES:SECONDS or DAYS-HOURS",
        "1-12:00:00",
    ),
    _option("tmp", _SIZE, _SIZES, "100G"),
)
OPTIONS: Mapping[str, Option] = {option.name: option for option in _TABLE}

ONE_OF: tuple[frozenset[str], ...] = (
    frozenset({"mem", "mem-per-cpu", "mem-per-gpu"}),
    frozenset({"cpus-per-task", "cpus-per-gpu"}),
)
"""Options of which sbatch takes one: "mutually exclusive" in its manual."""

_OURS_OUTPUT = "the agent keeps a job's output in its job directory"
_OURS_KEY = "the agent finds its jobs again by it"
_OURS_SCRIPT = "the agent renders the job's script"
_ENVIRONMENT = "a job's environment is set in agent.yaml (environment)"
_ELSEWHERE = "the agent watches one cluster; start an agent for each"
_WHO = "jobs run as the user of the agent"

REFUSED: Mapping[str, str] = {
    "array": "one job is one run; bursts of equal runs become job arrays by themselves",
    "chdir": "set environment.working_directory in agent.yaml",
    "cluster-constraint": _ELSEWHERE,
    "clusters": _ELSEWHERE,
    "comment": _OURS_KEY,
    "container": "set environment.container in agent.yaml",
    "error": _OURS_OUTPUT,
    "export": _ENVIRONMENT,
    "export-file": _ENVIRONMENT,
    "get-user-env": _ENVIRONMENT,
    "gid": _WHO,
    "hetjob": (
        "a run is one process on one allocation; components of a heterogeneous job would have "
        "nothing to do. Let an op submit such a job"
    ),
    "hold": "a run that waits for a person is better not launched; or use begin or dependency",
    "input": _OURS_SCRIPT,
    "job-name": _OURS_KEY,
    "no-requeue": "set requeue: false",
    "open-mode": _OURS_OUTPUT,
    "output": _OURS_OUTPUT,
    "parsable": "the agent reads what sbatch prints",
    "quiet": "the agent reads what sbatch prints",
    "test-only": "no job would start; `hpc-agent template check` does it",
    "uid": _WHO,
    "wait": "the agent watches its jobs by itself",
    "wrap": _OURS_SCRIPT,
}

EXTRA = frozenset(
    [
        "acctg-freq",
        "batch",
        "bb",
        "bbf",
        "contiguous",
        "core-spec",
        "cores-per-socket",
        "cpu-freq",
        "delay-boot",
        "distribution",
        "extra",
        "extra-node-info",
        "gpu-bind",
        "gpu-freq",
        "gres-flags",
        "hint",
        "kill-on-invalid-dep",
        "mcs-label",
        "mem-bind",
        "mincpus",
        "network",
        "no-kill",
        "ntasks-per-core",
        "ntasks-per-gpu",
        "ntasks-per-socket",
        "oom-kill-step",
        "overcommit",
        "oversubscribe",
        "power",
        "prefer",
        "priority",
        "profile",
        "propagate",
        "reboot",
        "resv-ports",
        "segment",
        "sockets-per-node",
        "spread-job",
        "stepmgr",
        "switches",
        "thread-spec",
        "threads-per-core",
        "tres-bind",
        "tres-per-task",
        "use-min-nodes",
        "verbose",
        "wait-all-nodes",
        "wckey",
    ]
)
"""The other long options of sbatch, which ``extra`` takes."""
