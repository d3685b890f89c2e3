"""The agent's token: where it is read from, and when again."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from hpc_agent.config.agent import AgentConfig
from hpc_agent.errors import ConfigError

TOKEN_VARIABLE = "DAGSTER_CLOUD_AGENT_TOKEN"  # noqa: S105 - the variable's name, not a token
TOKEN_REREAD_SECONDS = 10.0


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
