"""``ui.yaml`` in the control plane's home: who is let into the web UI, and by which names."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from hpc_agent.errors import ConfigError


class UiAuth(StrEnum):
    """How visitors show who they are."""

    TOKEN = "token"  # noqa: S105 a word
    OFF = "off"


class UiConfig(BaseModel):
    """``hosts``: names of the UI beside those in its certificate, for example a proxy's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    auth: UiAuth = UiAuth.TOKEN
    hosts: tuple[str, ...] = ()


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
        problems = "; ".join(
            f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}"
            for each in error.errors()
        )
        raise ConfigError(f"{path}: {problems}") from error
