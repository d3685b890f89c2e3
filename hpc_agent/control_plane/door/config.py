"""``ui.yaml`` in the control plane's home: who is let into the web UI, and by which names."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hpc_agent.control_plane.roles import Role
from hpc_agent.errors import ConfigError

Network = IPv4Network | IPv6Network


class UiAuth(StrEnum):
    """How visitors show who they are."""

    TOKEN = "token"  # noqa: S105 a word
    HEADER = "header"
    OFF = "off"


class ProxyConfig(BaseModel):
    """A proxy that has found out who asks, and says so in a header.

    It is known by its connection: to ``socket``, which it alone may open, or from ``addresses``.
    ``default_role`` is for those that ``roles`` does not name; None lets nobody else in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    header: str = Field(default="X-Remote-User", pattern=r"^[A-Za-z0-9-]+$")
    socket: Path | None = None
    addresses: tuple[Network, ...] = ()
    roles: Mapping[str, Role] = Field(default_factory=dict)
    default_role: Role | None = Role.VIEWER

    @field_validator("addresses")
    @classmethod
    def _is_elsewhere(cls, networks: tuple[Network, ...]) -> tuple[Network, ...]:
        for network in networks:
            if network.is_loopback or _is_here(network):
                raise ValueError(
                    f"every user of this machine can connect from {network}: use `socket`"
                )
        return networks

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if (self.socket is None) == (not self.addresses):
            raise ValueError("give either `socket` or `addresses`, by which the proxy is known")
        if self.socket is not None and not self.socket.is_absolute():
            raise ValueError("`socket` must be an absolute path")
        return self


class UiConfig(BaseModel):
    """``hosts``: names of the UI beside those in its certificate, for example a proxy's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    auth: UiAuth = UiAuth.TOKEN
    hosts: tuple[str, ...] = ()
    proxy: ProxyConfig | None = None

    @model_validator(mode="after")
    def _has_proxy(self) -> Self:
        if self.auth is UiAuth.HEADER and self.proxy is None:
            raise ValueError("auth: header needs `proxy`: see docs/web-ui.md")
        if self.auth is UiAuth.HEADER and not self.hosts:
            raise ValueError("auth: header needs `hosts`: the names by which the proxy is reached")
        return self

    @property
    def socket(self) -> Path | None:
        """Where the door listens instead of on a port."""
        return self.proxy.socket if self.auth is UiAuth.HEADER and self.proxy else None


def read_ui_config(path: Path, auth: str | None = None) -> UiConfig:
    """Return what the file says, or what holds without one; ``auth`` goes before it.

    Raises ConfigError.
    """
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        content = {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold keys and values, for example `auth: token`")
    # YAML reads a bare `off` as false.
    if content.get("auth") is False:
        content["auth"] = "off"
    if auth is not None:
        content["auth"] = auth
    try:
        return UiConfig.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_problem(each["loc"], each["msg"]) for each in error.errors())
        raise ConfigError(f"{path}: {problems}") from error


def _problem(place: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in place)
    return f"{where}: {message}" if where else message


def _is_here(network: Network) -> bool:
    """Tell whether a single address is one of this machine."""
    if network.num_addresses > 1:
        return False
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    with socket.socket(family) as probe:
        try:
            probe.bind((str(network.network_address), 0))
        except OSError:
            return False
    return True
