"""The Slurm options that user code may set; written by packaging/user_options.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """What an option's value must look like; a switch may be true or false as well."""

    pattern: str
    form: str
    example: str
    is_switch: bool = False


@dataclass(frozen=True, kw_only=True)
class Fields:
    """One field for each option of sbatch, "_" for "-"."""

    account: str | int | None = None
    begin: str | int | None = None
    constraint: str | int | None = None
    cpus_per_gpu: str | int | None = None
    cpus_per_task: str | int | None = None
    deadline: str | int | None = None
    dependency: str | int | None = None
    exclude: str | int | None = None
    exclusive: bool | str | None = None
    gpus: str | int | None = None
    gpus_per_node: str | int | None = None
    gpus_per_socket: str | int | None = None
    gpus_per_task: str | int | None = None
    gres: str | int | None = None
    licenses: str | int | None = None
    mail_type: str | int | None = None
    mail_user: str | int | None = None
    mem: str | int | None = None
    mem_per_cpu: str | int | None = None
    mem_per_gpu: str | int | None = None
    nice: str | int | None = None
    nodelist: str | int | None = None
    nodes: str | int | None = None
    ntasks: str | int | None = None
    ntasks_per_node: str | int | None = None
    partition: str | int | None = None
    qos: str | int | None = None
    requeue: bool | str | None = None
    reservation: str | int | None = None
    signal: str | int | None = None
    time: str | int | None = None
    tmp: str | int | None = None


OPTIONS: Mapping[str, Option] = {
    "account": Option("[A-Za-z0-9_.+-]+", "a name", "physics"),
    "begin": Option("[A-Za-z0-9:/+.-]+", "a time as sbatch reads it", "now+1hour"),
    "constraint": Option("[A-Za-z0-9_.:*&|,\\[\\]()+-]+", "features", "a100&nvlink"),
    "cpus-per-gpu": Option("[0-9]+", "a number", "8"),
    "cpus-per-task": Option("[0-9]+", "a number", "4"),
    "deadline": Option("[A-Za-z0-9:/+.-]+", "a time as sbatch reads it", "2030-01-31T18:00"),
    "dependency": Option(
        "(singleton|[a-z]+:[0-9]+(_[0-9]+)?(\\+[0-9]+)?(:[0-9]+(_[0-9]+)?(\\+[0-9]+)?)*)([,?](singleton|[a-z]+:[0-9]+(_[0-9]+)?(\\+[0-9]+)?(:[0-9]+(_[0-9]+)?(\\+[0-9]+)?)*))*",
        "conditions on jobs, by their ids",
        "afterok:4711",
    ),
    "exclude": Option("[A-Za-z0-9_.,\\[\\]-]+", "names of nodes", "n[01-04]"),
    "exclusive": Option("user|mcs|topo", "true, user, mcs or topo", "user", is_switch=True),
    "gpus": Option(
        "([A-Za-z0-9_.+-]+:)?[0-9]+(,[A-Za-z0-9_.+-]+:[0-9]+)*",
        "a number, or TYPE:NUMBER",
        "a100:2",
    ),
    "gpus-per-node": Option(
        "([A-Za-z0-9_.+-]+:)?[0-9]+(,[A-Za-z0-9_.+-]+:[0-9]+)*", "a number, or TYPE:NUMBER", "4"
    ),
    "gpus-per-socket": Option(
        "([A-Za-z0-9_.+-]+:)?[0-9]+(,[A-Za-z0-9_.+-]+:[0-9]+)*", "a number, or TYPE:NUMBER", "1"
    ),
    "gpus-per-task": Option(
        "([A-Za-z0-9_.+-]+:)?[0-9]+(,[A-Za-z0-9_.+-]+:[0-9]+)*", "a number, or TYPE:NUMBER", "1"
    ),
    "gres": Option(
        "[A-Za-z0-9_.:/=+-]+(,[A-Za-z0-9_.:/=+-]+)*",
        "NAME[:TYPE][:NUMBER], for each node",
        "gpu:a100:2",
    ),
    "licenses": Option(
        "[A-Za-z0-9_.:/=@+-]+(,[A-Za-z0-9_.:/=@+-]+)*",
        "NAME[@SERVER][:NUMBER], separated by commas",
        "matlab:1",
    ),
    "mail-type": Option("[A-Z_0-9]+(,[A-Z_0-9]+)*", "events", "FAIL,TIME_LIMIT_80"),
    "mail-user": Option(
        "[A-Za-z0-9_.+-]+(@[A-Za-z0-9.-]+)?(,[A-Za-z0-9_.+-]+(@[A-Za-z0-9.-]+)?)*",
        "addresses, separated by commas",
        "me@example.org",
    ),
    "mem": Option(
        "[0-9]+([KMGTkmgt][Bb]?)?", "megabytes, or a number with K, M, G or T; of each node", "32G"
    ),
    "mem-per-cpu": Option(
        "[0-9]+([KMGTkmgt][Bb]?)?", "megabytes, or a number with K, M, G or T", "4G"
    ),
    "mem-per-gpu": Option(
        "[0-9]+([KMGTkmgt][Bb]?)?", "megabytes, or a number with K, M, G or T", "64G"
    ),
    "nice": Option("-?[0-9]+", "a number; higher is later", "100"),
    "nodelist": Option("[A-Za-z0-9_.,\\[\\]-]+", "names of nodes", "n[01-04]"),
    "nodes": Option("[0-9]+(-[0-9]+)?", "a number, or LEAST-MOST", "2"),
    "ntasks": Option("[0-9]+", "a number", "16"),
    "ntasks-per-node": Option("[0-9]+", "a number", "8"),
    "partition": Option(
        "[A-Za-z0-9_.+-]+(,[A-Za-z0-9_.+-]+)*", "names, separated by commas", "gpu"
    ),
    "qos": Option("[A-Za-z0-9_.+-]+", "a name", "normal"),
    "requeue": Option("", "true or false", "true", is_switch=True),
    "reservation": Option(
        "[A-Za-z0-9_.+-]+(,[A-Za-z0-9_.+-]+)*", "names, separated by commas", "maintenance-test"
    ),
    "signal": Option("([BR]{1,2}:)?[A-Za-z0-9]+(@[0-9]+)?", "[B:]SIGNAL[@SECONDS]", "B:USR1@60"),
    "time": Option(
        "([0-9]+-)?[0-9]+(:[0-9]{1,2}){0,2}|(?i:infinite|unlimited)",
        "minutes, HOURS:MINUTES:SECONDS or DAYS-HOURS",
        "1-12:00:00",
    ),
    "tmp": Option("[0-9]+([KMGTkmgt][Bb]?)?", "megabytes, or a number with K, M, G or T", "100G"),
}

ONE_OF: tuple[frozenset[str], ...] = (
    frozenset(["cpus-per-gpu", "cpus-per-task"]),
    frozenset(["mem", "mem-per-cpu", "mem-per-gpu"]),
)

REFUSED: Mapping[str, str] = {
    "array": "one job is one run; bursts of equal runs become job arrays by themselves",
    "chdir": "set environment.working_directory in agent.yaml",
    "cluster-constraint": "the agent watches one cluster; start an agent for each",
    "clusters": "the agent watches one cluster; start an agent for each",
    "comment": "the agent finds its jobs again by it",
    "container": "set environment.container in agent.yaml",
    "error": "the agent keeps a job's output in its job directory",
    "export": "a job's environment is set in agent.yaml (environment)",
    "export-file": "a job's environment is set in agent.yaml (environment)",
    "get-user-env": "a job's environment is set in agent.yaml (environment)",
    "gid": "jobs run as the user of the agent",
    "hetjob": "a run is one process on one allocation; components of a heterogeneous job would have nothing to do. Let an op submit such a job",
    "hold": "a run that waits for a person is better not launched; or use begin or dependency",
    "input": "the agent renders the job's script",
    "job-name": "the agent finds its jobs again by it",
    "no-requeue": "set requeue: false",
    "open-mode": "the agent keeps a job's output in its job directory",
    "output": "the agent keeps a job's output in its job directory",
    "parsable": "the agent reads what sbatch prints",
    "quiet": "the agent reads what sbatch prints",
    "test-only": "no job would start; `hpc-agent template check` does it",
    "uid": "jobs run as the user of the agent",
    "wait": "the agent watches its jobs by itself",
    "wrap": "the agent renders the job's script",
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

EXTRA_VALUE = r"[A-Za-z0-9_.,:/=@+-]+"

SHORT: Mapping[str, str] = {
    "A": "account",
    "B": "extra-node-info",
    "C": "constraint",
    "D": "chdir",
    "F": "nodefile",
    "G": "gpus",
    "H": "hold",
    "J": "job-name",
    "L": "licenses",
    "M": "clusters",
    "N": "nodes",
    "O": "overcommit",
    "Q": "quiet",
    "S": "core-spec",
    "W": "wait",
    "a": "array",
    "b": "begin",
    "c": "cpus-per-task",
    "d": "dependency",
    "e": "error",
    "i": "input",
    "k": "no-kill",
    "m": "distribution",
    "n": "ntasks",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "s": "oversubscribe",
    "t": "time",
    "v": "verbose",
    "w": "nodelist",
    "x": "exclude",
}

SWITCHES = frozenset(
    [
        "contiguous",
        "hold",
        "ignore-pbs",
        "no-requeue",
        "overcommit",
        "oversubscribe",
        "parsable",
        "quiet",
        "reboot",
        "requeue",
        "spread-job",
        "stepmgr",
        "test-only",
        "use-min-nodes",
        "verbose",
        "wait",
    ]
)
"""Options that take no value."""
OPTIONAL = frozenset(
    [
        "exclusive",
        "get-user-env",
        "nice",
        "no-kill",
        "propagate",
        "resv-ports",
    ]
)
"""Options whose value, if there is one, is in the same word."""
