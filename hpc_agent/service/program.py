"""The command that is to stay, and what it needs of the shell that installs it."""

from __future__ import annotations

import enum
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from hpc_agent.errors import ConfigError

# A service starts with a bare environment, without the site's Slurm on PATH.
INHERITED_VARIABLES = (
    "PATH",
    "SLURM_CONF",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
)


class Kind(enum.Enum):
    """Which of the two it is; the value is the name of its unit and files."""

    AGENT = "hpc-agent"
    CONTROL_PLANE = "hpc-agent-control-plane"

    @property
    def unit_name(self) -> str:
        """The name of its systemd unit."""
        return f"{self.value}.service"

    @property
    def title(self) -> str:
        """What it is, in words."""
        is_agent = self is Kind.AGENT
        return "Dagster hybrid agent for HPC" if is_agent else "Dagster control plane of hpc-agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A command with its arguments and variables; ``writes`` are the directories that it fills.

    ``python`` is the interpreter behind the command, which an environment only links to.
    """

    kind: Kind
    executable: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    writes: tuple[Path, ...] = ()
    python: Path | None = None

    @property
    def argv(self) -> list[str]:
        """The whole command."""
        return [str(self.executable), *self.arguments]


def agent_program(
    config: Path, *, writes: tuple[Path, ...] = (), environ: Mapping[str, str] = os.environ
) -> Program:
    """Return the agent of this installation, with this shell's environment.

    Raises ConfigError when the configuration file or the ``hpc-agent`` command cannot be found, or
    when a proxy variable holds a password.
    """
    config = config.expanduser().absolute()
    if not config.is_file():
        raise ConfigError(f"{config}: no such file; name the agent's configuration with --config")
    return Program(
        kind=Kind.AGENT,
        executable=find_executable(),
        arguments=("start", "--config", str(config)),
        environment=_inherited(environ),
        writes=writes,
        python=Path(sys.executable).resolve(),
    )


def control_plane_program(home: Path, *, environ: Mapping[str, str] = os.environ) -> Program:
    """Return the control plane of this installation. Raises ConfigError as ``agent_program``."""
    home = home.expanduser().absolute()
    if not (home / "dagster.yaml").is_file():
        raise ConfigError(
            f"{home} is no home of a control plane: `hpc-agent control-plane init` makes one"
        )
    return Program(
        kind=Kind.CONTROL_PLANE,
        executable=find_executable(),
        arguments=("control-plane", "start", "--home", str(home)),
        environment=_inherited(environ),
        writes=(home,),
        python=Path(sys.executable).resolve(),
    )


def find_executable() -> Path:
    """Return the command of this installation. Raises ConfigError."""
    beside = Path(sys.executable).with_name("hpc-agent")
    if beside.is_file():
        return beside
    found = shutil.which("hpc-agent")
    if found is None:
        raise ConfigError(
            f"the hpc-agent command is neither beside {sys.executable} nor on PATH; "
            "install dagster-hpc-agent into an environment and run it from there"
        )
    return Path(found).absolute()


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    chosen = {name: environ[name] for name in INHERITED_VARIABLES if environ.get(name)}
    for name, text in chosen.items():
        if name.lower() == "https_proxy" and urlsplit(text).password:
            raise ConfigError(
                f"{name} holds a password, and a unit file is no place for one: put the line "
                f"{name}=… into ~/.config/hpc-agent/environment (mode 0600), unset it here and "
                "install again"
            )
    return chosen
