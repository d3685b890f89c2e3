"""The agent's configuration: one pydantic model for agent.yaml and the environment.

A key of agent.yaml can also be given in the environment: ``HPC_AGENT__CONTROL_PLANE__URL`` is
``control_plane.url``; the value is read as YAML. The environment wins. The token is read from
``control_plane.token_file``, or from ``DAGSTER_CLOUD_AGENT_TOKEN``; it is never a key of the file.
"""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    ValidationError,
    field_validator,
    model_validator,
)

from hpc_agent.errors import ConfigError

TOKEN_VARIABLE = "DAGSTER_CLOUD_AGENT_TOKEN"  # noqa: S105 - the variable's name, not a token
TOKEN_REREAD_SECONDS = 10.0
ENVIRONMENT_PREFIX = "HPC_AGENT__"
DEFAULT_PATHS = (
    Path("agent.yaml"),
    Path("~/.config/hpc-agent/agent.yaml"),
    Path("/etc/hpc-agent/agent.yaml"),
)

OptionValue = str | int | float | bool
Seconds = Annotated[float, Field(gt=0)]
ExpandedPath = Annotated[Path, AfterValidator(lambda path: path.expanduser())]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_key_means_default(cls, content: Any) -> Any:
        """``options:`` with nothing but comments below is None in YAML."""
        if isinstance(content, dict):
            return {key: value for key, value in content.items() if value is not None}
        return content


class ControlPlane(_Section):
    """Where the control plane is and how to reach it."""

    url: str
    deployments: list[str] = ["prod"]
    branch_deployments: bool = False
    token_file: ExpandedPath | None = None
    ca_bundle: ExpandedPath | None = None
    proxy: str | None = None
    timeout_seconds: Seconds = 60
    long_poll_seconds: Annotated[float, Field(ge=0, le=300)] = 30

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
            raise ValueError("must start with https:// (http:// only to this machine)")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _serves_something(self) -> Self:
        if not self.deployments and not self.branch_deployments:
            raise ValueError("deployments may be empty only with branch_deployments: true")
        return self


class AgentQueues(_Section):
    """Which agent queues this agent takes work from."""

    include_default_queue: bool = True
    additional_queues: list[str] = []

    @property
    def names(self) -> list[str | None]:
        """The queues as the agent API has them: None stands for the default queue."""
        return [*self.additional_queues, *([None] if self.include_default_queue else [])]

    @model_validator(mode="after")
    def _is_a_queue(self) -> Self:
        if not self.names:
            raise ValueError("without the default queue, additional_queues must name one")
        return self


class AgentMetrics(_Section):
    """Whether heartbeats carry the agent's own use of CPU, memory and requests."""

    enabled: bool = False


class Scheduler(_Section):
    """Which scheduler starts jobs, and how often it may be asked."""

    kind: Literal["slurm", "local"] = "slurm"
    slurm_conf: ExpandedPath | None = None
    bin_dir: ExpandedPath | None = None
    poll_seconds: Seconds = 15
    command_timeout_seconds: Seconds = 60
    commands_burst: Annotated[int, Field(ge=1)] = 30
    commands_per_second: Annotated[float, Field(gt=0)] = 2
    local_slots: Annotated[int, Field(ge=1)] = 4
    lost_after_seconds: Seconds = 300


class Relay(_Section):
    """The listener that jobs on compute nodes dial."""

    bind: str = "0.0.0.0"  # noqa: S104 - compute nodes must reach it; every request needs a job token
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    advertise: list[str] = []
    allow: list[IPvAnyNetwork] = []
    spool_max_bytes: Annotated[int, Field(ge=1 << 20)] = 4 << 30


class Environment(_Section):
    """What a job does before it starts the user's Python."""

    python: str | None = None
    modules: list[str] = []
    variables: dict[str, str] = {}
    setup: list[str] = []


class Runs(_Section):
    """Run workers."""

    options: dict[str, OptionValue] = {}
    grace_seconds: Seconds = 30


class ServerTtl(_Section):
    """How long a code server without requests is kept. Branch deployments always have a limit."""

    enabled: bool = False
    full_deployments_seconds: Seconds = 24 * 3600
    branch_deployments_seconds: Seconds = 24 * 3600
    max_servers: Annotated[int, Field(ge=1)] = 25


class CodeServers(_Section):
    """Code servers."""

    options: dict[str, OptionValue] = {}
    startup_timeout_seconds: Seconds = 300
    queue_timeout_seconds: Seconds | None = None
    server_ttl: ServerTtl = ServerTtl()
    snapshot_uploads: Literal["direct", "legacy"] = "direct"


class Location(_Section):
    """Settings of one code location; they win over the cluster-wide ones."""

    environment: Environment | None = None
    run_options: dict[str, OptionValue] = {}
    code_server_options: dict[str, OptionValue] = {}


class ComputeLogs(_Section):
    """Upload of the runs' standard output and error to the control plane."""

    enabled: bool = True
    upload_interval_seconds: Annotated[int, Field(ge=1)] = 3


class Logging(_Section):
    """The agent's own log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class AgentConfig(_Section):
    """Everything the agent can be told."""

    control_plane: ControlPlane
    work_dir: ExpandedPath
    home: ExpandedPath = Field(
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
    options: dict[str, OptionValue] = {}
    environment: Environment = Environment()
    runs: Runs = Runs()
    code_servers: CodeServers = CodeServers()
    locations: dict[str, Location] = {}
    compute_logs: ComputeLogs = ComputeLogs()
    templates_dir: ExpandedPath | None = None
    logging: Logging = Logging()

    @field_validator("work_dir", "home")
    @classmethod
    def _is_absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("must be an absolute path")
        return path

    def allows(self, deployment: str, location: str, *, is_branch: bool) -> bool:
        """Whether this agent may serve a code location; what is not restricted is allowed."""
        allowed = (
            self.allowed_branch_deployment_locations
            if is_branch
            else self.allowed_full_deployment_locations.get(deployment)
        )
        return allowed is None or location in allowed

    def environment_of(self, location: str | None) -> Environment:
        """Return the environment of a code location: its own settings over the general ones."""
        own = self.locations[location].environment if location in self.locations else None
        if own is None:
            return self.environment
        return Environment(
            python=own.python or self.environment.python,
            modules=own.modules or self.environment.modules,
            variables={**self.environment.variables, **own.variables},
            setup=own.setup or self.environment.setup,
        )


def load_config(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> AgentConfig:
    """Read agent.yaml and the environment. Raises ConfigError with one message for all mistakes."""
    found = path or _first_existing(DEFAULT_PATHS)
    if found is None and not any(name.startswith(ENVIRONMENT_PREFIX) for name in environ):
        searched = ", ".join(str(candidate) for candidate in DEFAULT_PATHS)
        raise ConfigError(
            f"no agent.yaml found (looked for {searched}). Write one with "
            "`hpc-agent config example > agent.yaml`, or name it with --config."
        )
    content = _read_yaml(found) if found else {}
    for name, value in sorted(environ.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            _set_from_environment(content, name, value)
    return parse_config(content, source=str(found or "environment"))


def parse_config(content: Mapping[str, Any], *, source: str) -> AgentConfig:
    """Validate a configuration. Raises ConfigError naming ``source``, the key and the reason."""
    try:
        return AgentConfig.model_validate(content)
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()]
        raise ConfigError(f"{source}: " + f"\n{source}: ".join(lines)) from None


def read_token(config: AgentConfig, environ: Mapping[str, str] = os.environ) -> str:
    """Return the agent token, read anew at each call so that a rotated token is picked up.

    Raises ConfigError when there is none, or when its file can be read by others.
    """
    path = config.control_plane.token_file
    if path is None:
        token = environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            raise ConfigError(
                f"no agent token: set control_plane.token_file in agent.yaml, or {TOKEN_VARIABLE}"
            )
        return token
    try:
        mode = path.stat().st_mode
        token = path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"control_plane.token_file: {path}: {error.strerror}") from None
    if mode & 0o077:
        raise ConfigError(
            f"control_plane.token_file: {path} can be read by others; run `chmod 600 {path}`"
        )
    if not token:
        raise ConfigError(f"control_plane.token_file: {path} is empty")
    return token


class TokenSource:
    """The agent token, read again after a while, so that a rotated one is picked up."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._token = read_token(config)
        self._read_at = time.monotonic()

    def __call__(self) -> str:
        """Return the token. Raises ConfigError when it cannot be read any more."""
        if time.monotonic() - self._read_at > TOKEN_REREAD_SECONDS:
            self._token = read_token(self._config)
            self._read_at = time.monotonic()
        return self._token


def _first_existing(candidates: tuple[Path, ...]) -> Path | None:
    return next((path for path in map(Path.expanduser, candidates) if path.is_file()), None)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of keys, not {type(content).__name__}")
    return content


def _set_from_environment(content: dict[str, Any], name: str, value: str) -> None:
    *parents, leaf = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
    target = content
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise ConfigError(f"environment: {name}: {parent} is not a section")
    target[leaf] = yaml.safe_load(value)


def _describe(problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(location[-1], _known_keys(location[:-1]), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"{key}: unknown key{hint}"
    if problem["type"] == "missing":
        return f"{key}: required, but missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message[:1].lower()}{message[1:]} (got {problem['input']!r})"


def _known_keys(path: list[str]) -> list[str]:
    model: Any = AgentConfig
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
        if model is None or not hasattr(model, "model_fields"):
            return list(Location.model_fields) if path[:1] == ["locations"] else []
    return list(model.model_fields)
