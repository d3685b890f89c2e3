"""Facts, gathered before anything is judged; None is what could not be found out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpc_agent.slurm.scheduler import NodeInfo, PartitionInfo


@dataclass(frozen=True, slots=True)
class Unknown:
    """Facts that could not be gathered: the reason."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerFacts:
    """Whether Slurm's commands are here and its controller answers; ``error`` says why not."""

    version: str
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PyslurmFacts:
    """The pyslurm of a Python; ``error`` says why it cannot be used, and what to do.

    ``cli_filters`` are the site's plugins that act in sbatch, empty without any.
    """

    python: str
    release: str
    error: str | None = None
    cli_filters: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFacts:
    """What Slurm's commands print that is not theirs, by command.

    ``strange`` was told apart from their output, ``unreadable`` may have been a part of it.
    """

    strange: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unreadable: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmFacts:
    """A Slurm as its commands describe it.

    ``settings`` is ``scontrol show config``. ``accounting_error`` is None where sacct answers.
    ``submit_limits`` are association limits on submitted jobs by name. ``refused`` says for each
    kind of job what ``sbatch --test-only`` has against it, None when nothing.
    """

    settings: Mapping[str, str]
    partitions: Sequence[PartitionInfo] = ()
    nodes: Sequence[NodeInfo] = ()
    accounting_error: str | None = None
    clusters: Sequence[str] = ()
    submit_limits: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, str | None] = field(default_factory=dict)

    def number(self, name: str) -> int | None:
        """Return the number a setting starts with (``300 sec``), None when it has none."""
        word = self.settings.get(name, "").split(" ")[0].split(",")[0]
        return int(word) if word.isdigit() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryFacts:
    """A directory of the agent's: file system, free bytes, mode bits.

    ``free_files`` is how many more files there can be, None where nothing limits them.
    ``weakness`` says who else may replace it, None when only root can.
    """

    path: str
    filesystem: str
    is_shared: bool
    free_bytes: int
    free_files: int | None
    mode: int
    is_own: bool
    weakness: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The machine that the agent runs on, for a process that is to stay.

    Limits are those of setrlimit(2), None for unlimited; ``cgroup_memory`` is the lowest memory
    limit of the control groups this process is in. ``work_dir`` None: it is on another machine.
    ``services`` are the ways in which the agent is kept running.
    """

    home: DirectoryFacts
    work_dir: DirectoryFacts | None
    has_systemd: bool
    lingers: bool | None
    kill_user_processes: bool | None
    services: Sequence[str]
    cpu_seconds: int | None
    processes: int | None
    open_files: int | None
    cgroup_memory: int | None
    cgroup_cpus: float | None
    token_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateFacts:
    """What is wrong with the templates of jobs; each is rendered and read by a shell for that."""

    errors: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneFacts:
    """What the control plane answers; ``clock_ahead`` is its clock less ours in seconds.

    With an ``error`` nothing else is known. ``branch_deployments`` is how many there are.
    """

    url: str
    error: str | None
    missing_deployments: Sequence[str] = ()
    branch_deployments: int | Unknown = Unknown("nobody has asked")
    clock_ahead: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFacts:
    """The state of an agent with this home directory; ``running_on`` None when none runs."""

    running_on: str | None
    damage: str | None
    messages_waiting: int
    oldest_message_seconds: float
    refused_messages: int
    spooled_events: int
    rejected_events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFacts:
    """How a probe job of one partition went; ``error`` says why it found out nothing.

    ``partition`` is empty for the one that Slurm takes by default.
    """

    partition: str
    job_id: str | None = None
    error: str | None = None

    @property
    def where(self) -> str:
        """The partition in words."""
        return f"partition {self.partition}" if self.partition else "default partition"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a probe job found on a compute node.

    ``relay`` says for each address that was tried what went wrong, None when it answered.
    ``pythons`` has the release of dagster in each configured interpreter, ``python_errors`` why
    there is none. ``seen_after`` is how long a file written on the node took to be seen here.
    ``clock_ahead`` is in seconds, None where it is not known. A node that ``ignores_containers``
    has Slurm run the job as if ``--container`` were not there. ``readable_secrets`` are files of
    the agent that hold secrets and that a job can read there.
    """

    node: str
    partition: str
    python: str
    relay: Mapping[str, str | None]
    clock_ahead: float | None
    seen_after: float
    tmp_free_bytes: int
    memory_limit: int | None
    loopback_error: str | None = None
    container_runtimes: Sequence[str] = ()
    ignores_containers: bool = False
    readable_secrets: Sequence[str] = ()
    pythons: Mapping[str, str] = field(default_factory=dict)
    python_errors: Mapping[str, str] = field(default_factory=dict)
