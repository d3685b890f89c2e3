"""The agent's token: where it comes from, and when it is asked for again."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from hpc_agent.config.agent import AgentConfig
from hpc_agent.config.token_command import printed_by
from hpc_agent.errors import ConfigError, HpcAgentError
from hpc_agent.service.unit import CREDENTIAL

TOKEN_VARIABLE = "DAGSTER_CLOUD_AGENT_TOKEN"  # noqa: S105 - the variable's name, not a token
TOKEN_REREAD_SECONDS = 10.0

# What goes into a header as it is. An HTTP library would show anything else in its error.
_TOKEN = re.compile(r"[\x21-\x7e]+")

log = logging.getLogger(__name__)


def read_token(config: AgentConfig, environ: Mapping[str, str] = os.environ) -> str:
    """Return the agent token, got anew at each call. Blocks: a command may take its time.

    Raises ConfigError when there is none, or when its file can be read by others, and
    ControlPlaneAuthError when the command fails.
    """
    settings = config.control_plane
    if settings.token_command:
        argv = settings.token_command
        without = {name: each for name, each in environ.items() if name != TOKEN_VARIABLE}
        return _checked(printed_by(argv, without), f"control_plane.token_command: {argv[0]}")
    if settings.token_file is not None:
        where = f"control_plane.token_file: {settings.token_file}"
        return _in_file(settings.token_file, where, must_be_private=True)
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        credential = Path(directory, CREDENTIAL)
        if credential.exists():
            # systemd guards it by an access control list, which shows as a mode for the group.
            return _in_file(credential, f"credential {CREDENTIAL}", must_be_private=False)
    if token := environ.get(TOKEN_VARIABLE, "").strip():
        return _checked(token, TOKEN_VARIABLE)
    raise ConfigError(
        "no agent token: set control_plane.token_file or token_command in agent.yaml, or "
        f"{TOKEN_VARIABLE}, or give the service the credential {CREDENTIAL}"
    )


def _in_file(path: Path, where: str, *, must_be_private: bool) -> str:
    try:
        mode, text = path.stat().st_mode, path.read_text(errors="replace")
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}") from None
    if must_be_private and mode & 0o077:
        raise ConfigError(f"{where} can be read by others; run `chmod 600 {path}`")
    return _checked(text, where)


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not token:
        raise ConfigError(f"{where} is empty")
    if not _TOKEN.fullmatch(token):
        raise ConfigError(f"{where} is no token: it has blanks, or characters other than ASCII")
    return token


class TokenSource:
    """The agent token, got again so that a rotated one is picked up.

    A file is read again after a while; whatever the source, it is asked again when the control
    plane has refused what it gave, once in ``pause_seconds`` at most.
    """

    def __init__(self, config: AgentConfig, *, pause_seconds: float = TOKEN_REREAD_SECONDS) -> None:
        """Get the token. Blocks, and raises, as ``read_token`` does."""
        self._config = config
        self._pause_seconds = pause_seconds
        self._renewing = asyncio.Lock()
        self._token = read_token(config)
        self._read_at = time.monotonic()

    def __call__(self) -> str:
        """Return the token. Raises ConfigError when its file cannot be read any more."""
        if not self._config.control_plane.token_command and self._is_due():
            self._token = read_token(self._config)
            self._read_at = time.monotonic()
        return self._token

    async def renew(self, refused: str) -> None:
        """Ask for another token, unless there is one already, or nobody should ask now."""
        async with self._renewing:
            if self._token != refused or not self._is_due():
                return
            self._read_at = time.monotonic()
            try:
                self._token = await asyncio.to_thread(read_token, self._config)
            except HpcAgentError as error:
                log.warning("the agent token was refused, and there is no other one: %s", error)

    def _is_due(self) -> bool:
        return time.monotonic() - self._read_at > self._pause_seconds
