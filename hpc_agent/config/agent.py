"""The whole of agent.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from hpc_agent.config.access import DEFAULT_ACCESS, Access
from hpc_agent.config.connections import AgentMetrics, AgentQueues, ControlPlane, Relay
from hpc_agent.config.environment import Environment
from hpc_agent.config.instance import Artifacts, ComputeLogs, PythonLogs, directory_name
from hpc_agent.config.jobs import (
    CodeServers,
    Deployment,
    Location,
    PlacementName,
    Runs,
    Scheduler,
    Steps,
)
from hpc_agent.config.observation import Logging, Metrics, Traces
from hpc_agent.config.policy import Policy
from hpc_agent.config.pools import Pool
from hpc_agent.config.section import ExistingDirectory, Options, OwnDirectory, Section


class AgentConfig(Section):
    """Everything the agent can be told."""

    control_plane: ControlPlane
    work_dir: OwnDirectory
    home: OwnDirectory = Field(
        default_factory=lambda: Path("~/.local/state/hpc-agent").expanduser()
    )
    label: str | None = None
    agent_queues: AgentQueues = AgentQueues()
    allowed_full_deployment_locations: dict[str, list[str]] = {}
    allowed_branch_deployment_locations: list[str] | None = None
    agent_metrics: AgentMetrics = AgentMetrics()
    node_python: str = "python3"
    scheduler: Scheduler = Scheduler()
    relay: Relay = Relay()
    options: Options = {}
    deployments: dict[str, Deployment] = {}
    branch_deployments: Deployment = Deployment()
    policy: Policy = Policy()
    access: Access = DEFAULT_ACCESS
    environment: Environment = Environment()
    runs: Runs = Runs()
    steps: Steps = Steps()
    code_servers: CodeServers = CodeServers()
    pools: dict[str, Pool] = {}
    locations: dict[str, Location] = {}
    compute_logs: ComputeLogs = ComputeLogs()
    python_logs: PythonLogs = PythonLogs()
    artifacts: Artifacts = Artifacts()
    templates_dir: ExistingDirectory | None = None
    logging: Logging = Logging()
    metrics: Metrics = Metrics()
    traces: Traces = Traces()

    @field_validator("work_dir", "home")
    @classmethod
    def _is_absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("must be an absolute path")
        if "\\" in str(path):
            raise ValueError("must hold no backslash: sbatch takes it out of paths of output files")
        return path

    def allows(self, deployment: str, location: str, *, is_branch: bool) -> bool:
        """Whether this agent may serve a code location; what is not restricted is allowed."""
        allowed = (
            self.allowed_branch_deployment_locations
            if is_branch
            else self.allowed_full_deployment_locations.get(deployment)
        )
        return allowed is None or location in allowed

    def is_branch(self, deployment: str) -> bool:
        """Whether a deployment is a branch deployment: it is none of the full ones."""
        return deployment not in self.control_plane.deployments

    def placement_of(self, location: str) -> PlacementName:
        """Return where a location's code server lives."""
        own = self.locations[location].code_server_placement if location in self.locations else None
        return own or self.code_servers.placement

    @model_validator(mode="after")
    def _has_files_of_login_node(self) -> Self:
        if self.has_files_elsewhere and self.uses_login_node:
            raise ValueError(
                "code servers with placement login are processes of this machine, and "
                "scheduler.ssh.files: sftp keeps work_dir on another: take placement job or packed"
            )
        return self

    @model_validator(mode="after")
    def _sees_artifacts_it_removes(self) -> Self:
        if self.has_files_elsewhere and self.artifacts.keep_days is not None:
            raise ValueError(
                "artifacts.keep_days: they are on another machine (scheduler.ssh.files: sftp), and "
                "this agent removes none there: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _has_the_pools_of_locations(self) -> Self:
        users: dict[str, str] = {}
        for name, location in self.locations.items():
            pool = location.pool
            if pool is None:
                continue
            if pool not in self.pools:
                known = ", ".join(sorted(self.pools)) or "none"
                raise ValueError(
                    f"locations.{name}.pool: there is no pool {pool!r}; pools has {known}"
                )
            other = users.setdefault(pool, name)
            if self.environment_of(name) != self.environment_of(other):
                raise ValueError(
                    f"locations.{name}.pool: pool {pool} serves {other} as well, and a pool has "
                    "one environment: give them the same, or a pool each"
                )
        return self

    @model_validator(mode="after")
    def _has_pools_of_slurm(self) -> Self:
        if self.pools and self.scheduler.kind != "slurm":
            raise ValueError("pools are allocations of Slurm: scheduler.kind must be slurm")
        return self

    def environment_of_pool(self, pool: str) -> Environment:
        """Return the environment that the code locations of a pool share."""
        users = (name for name, location in self.locations.items() if location.pool == pool)
        return self.environment_of(next(users, None))

    @property
    def has_files_elsewhere(self) -> bool:
        """Whether ``work_dir`` is on a machine that is reached by SFTP."""
        settings = self.scheduler
        over_ssh = settings.kind == "slurm" and settings.transport == "ssh"
        return over_ssh and settings.ssh is not None and settings.ssh.files == "sftp"

    @property
    def uses_login_node(self) -> bool:
        """Whether any code server may be a process of this machine."""
        own = {location.code_server_placement for location in self.locations.values()}
        return "login" in own | {self.code_servers.placement}

    def access_of(self, location: str | None) -> Access:
        """Return what the jobs of a code location may ask of the control plane."""
        general = self.access.over(DEFAULT_ACCESS)
        own = self.locations.get(location or "")
        return general if own is None else own.access.over(general)

    def environment_of(self, location: str | None) -> Environment:
        """Return the environment of a code location: its own settings over the general ones."""
        own = self.locations.get(location or "")
        if own is None or own.environment is None:
            return self.environment
        return own.environment.over(self.environment)

    def python_logs_of(self, location: str | None) -> PythonLogs:
        """Return how a code location's Python logs: by its own settings or the general ones."""
        own = self.locations.get(location or "")
        return self.python_logs if own is None or own.python_logs is None else own.python_logs

    @property
    def artifacts_directory(self) -> Path:
        """Where the artifacts of all code locations are."""
        return self.artifacts.directory or self.work_dir / "artifacts"

    def artifacts_of(self, deployment: str, location: str | None) -> Path:
        """Return where the artifacts of a code location are."""
        return (
            self.artifacts_directory / directory_name(deployment) / directory_name(location or "")
        )
