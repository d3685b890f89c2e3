"""``listen.yaml`` in the control plane's home: where it listens, and its name on the network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hpc_agent.errors import ConfigError
from hpc_agent.private_files import write_private

_Port = Annotated[int, Field(ge=0, le=65535)]
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.:-]*[A-Za-z0-9_])?")


class Listening(BaseModel):
    """``name`` is by what agents call it, and in its certificate; port 0 is any free one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = None
    host: str = "127.0.0.1"
    port: _Port = 8443
    webserver_host: str = "127.0.0.1"
    webserver_port: _Port = 3000

    @field_validator("name", "host", "webserver_host")
    @classmethod
    def _is_a_host(cls, host: str | None) -> str | None:
        if host is not None and host != "::" and not _NAME.fullmatch(host):
            raise ValueError("must be a host name or an address, without a port")
        return host

    def with_options(self, **options: Any) -> Listening:
        """Return it with the options that are not None. Raises ConfigError."""
        given = {name: value for name, value in options.items() if value is not None}
        return _validated(self.model_dump() | given, "command line")


def read_listening(path: Path) -> Listening:
    """Return what the file says, the defaults without one. Raises ConfigError."""
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        return Listening()
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    return _validated(content, str(path))


def write_listening(path: Path, listening: Listening) -> None:
    """Write what differs from the defaults."""
    content = yaml.safe_dump(listening.model_dump(exclude_defaults=True), sort_keys=False)
    head = "# Where `hpc-agent control-plane start` listens; its options go before this.\n"
    write_private(path, head + content, durable=True)


def _validated(content: object, source: str) -> Listening:
    try:
        return Listening.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors()
        )
        raise ConfigError(f"{source}: {problems}") from error
