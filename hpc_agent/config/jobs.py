"""How jobs are started: scheduler, deployments, runs, code servers, single code locations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from hpc_agent.config.access import Access
from hpc_agent.config.environment import Environment
from hpc_agent.config.instance import PythonLogs
from hpc_agent.config.pools import Execution, Warmth
from hpc_agent.config.retries import Retries
from hpc_agent.config.section import (
    Certificates,
    ExistingDirectory,
    ExistingFile,
    Options,
    Seconds,
    Section,
)

PlacementName = Literal["job", "login", "packed"]


class Ssh(Section):
    """The machine whose Slurm commands are used; ~/.ssh/config fills in what is not given.

    ``files`` mounted: ``work_dir`` is mounted here as well. ``relay`` direct: compute nodes connect
    to this machine.
    """

    host: str
    user: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    key_file: ExistingFile | None = None
    known_hosts: ExistingFile | None = None
    jump_host: str | None = None
    files: Literal["sftp", "mounted"] = "sftp"
    relay: Literal["forwarded", "direct"] = "forwarded"


class Pyslurm(Section):
    """The Python that has pyslurm, for ``transport: pyslurm``; without it the agent's own."""

    python: ExistingFile | None = None

    @field_validator("python")
    @classmethod
    def _is_absolute(cls, python: Path | None) -> Path | None:
        if python is not None and not python.is_absolute():
            raise ValueError("must be an absolute path, for example /opt/pyslurm/bin/python")
        return python


class Rest(Section):
    """slurmrestd: where it is, and where tokens for it come from."""

    url: Annotated[str, Field(pattern=r"^(https?://[^/@\s]+(/\S*)?|unix:///.+)$")]
    user: str | None = None
    token_file: ExistingFile | None = None
    token_command: tuple[str, ...] = ()
    ca_file: Certificates | None = None

    @model_validator(mode="after")
    def _has_one_source_of_tokens(self) -> Self:
        if self.token_file is not None and self.token_command:
            raise ValueError("set token_file or token_command, not both")
        if self.token_file is None and not self.token_command and not self.url.startswith("unix:"):
            raise ValueError("set token_file or token_command; only a unix socket may do without")
        if self.ca_file is not None and not self.url.startswith("https:"):
            raise ValueError("ca_file is for an url that begins with https://")
        return self


class Scheduler(Section):
    """Which scheduler starts jobs, and how often it may be asked."""

    kind: Literal["slurm", "local"] = "slurm"
    transport: Literal["cli", "ssh", "rest", "pyslurm"] = "cli"
    ssh: Ssh | None = None
    rest: Rest | None = None
    pyslurm: Pyslurm | None = None
    slurm_conf: ExistingFile | None = None
    bin_dir: ExistingDirectory | None = None
    poll_seconds: Seconds = 15
    partitions_seconds: Seconds | None = 300
    command_timeout_seconds: Seconds = 60
    commands_burst: Annotated[int, Field(ge=1)] = 30
    commands_per_second: Annotated[float, Field(gt=0)] = 2
    arrays: bool = True
    local_slots: Annotated[int, Field(ge=1)] = 4
    lost_after_seconds: Seconds = 300
    avoid_failing_nodes_minutes: Annotated[int, Field(ge=0, le=7 * 24 * 60)] = 60

    @model_validator(mode="after")
    def _knows_where_to(self) -> Self:
        if self.transport == "ssh" and self.ssh is None:
            raise ValueError("transport ssh needs a section ssh with a host")
        if self.transport == "rest" and self.rest is None:
            raise ValueError("transport rest needs a section rest with a url")
        return self


class Runs(Section):
    """Run workers."""

    options: Options = {}
    grace_seconds: Seconds = 30
    walltime_warning_seconds: Seconds | None = None
    step_resources: bool = True
    asset_records: bool = True
    choose_partition: bool = False
    retries: Retries = Retries()


class Steps(Section):
    """Jobs that runs ask for: steps of ``slurm_executor``, and commands of user code."""

    options: Options = {}
    max_per_run: Annotated[int, Field(ge=0)] = 20_000
    max_concurrent: Annotated[int, Field(ge=1)] | None = None


class ServerTtl(Section):
    """How long a code server without requests is kept. Branch deployments always have a limit."""

    enabled: bool = False
    full_deployments_seconds: Seconds = 24 * 3600
    branch_deployments_seconds: Seconds = 24 * 3600
    max_servers: Annotated[int, Field(ge=1)] = 25


class LoginNode(Section):
    """Code servers that are processes of the login node: a limit on the memory of each."""

    memory_mb: Annotated[int, Field(ge=64)] = 2048
    nice: Annotated[int, Field(ge=0, le=19)] = 10


class Packed(Section):
    """Code servers that share a job: a limit on the memory of each, and the job's options."""

    servers_per_job: Annotated[int, Field(ge=1)] = 8
    memory_mb: Annotated[int, Field(ge=64)] = 2048
    idle_seconds: Seconds = 60
    options: Options = {}


class CodeServers(Section):
    """Code servers."""

    placement: PlacementName = "job"
    login: LoginNode = LoginNode()
    packed: Packed = Packed()
    options: Options = {}
    startup_timeout_seconds: Seconds = 300
    queue_timeout_seconds: Seconds | None = None
    unresponsive_timeout_seconds: Seconds | None = 120
    handover_seconds: Seconds | None = None
    server_ttl: ServerTtl = ServerTtl()
    snapshot_uploads: Literal["direct", "legacy"] = "direct"


class Deployment(Section):
    """Settings of one full deployment, or of all branch deployments, over the cluster-wide ones."""

    options: Options = {}


class Location(Section):
    """Settings of one code location; they win over the cluster-wide ones."""

    environment: Environment | None = None
    run_options: Options = {}
    step_options: Options = {}
    max_concurrent_steps: Annotated[int, Field(ge=1)] | None = None
    code_server_options: Options = {}
    code_server_placement: PlacementName | None = None
    pool: str | None = None
    execution: Execution = "auto"
    warm: Warmth = "fork"
    access: Access = Access()
    python_logs: PythonLogs | None = None

    @model_validator(mode="after")
    def _has_what_it_executes_in(self) -> Self:
        if self.execution == "pool" and self.pool is None:
            raise ValueError("execution: pool needs pool, the name of one of agent.yaml's pools")
        return self
