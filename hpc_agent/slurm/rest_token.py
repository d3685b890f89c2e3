"""Tokens for slurmrestd (JSON web tokens, auth/jwt): from a file, or from a command.

A token is in no command line and in no message.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.slurm.commands import CommandRunner

_COMMAND_SECONDS = 60.0
_MARGIN_SECONDS = 60.0
_LARGEST_MARGIN = 0.25


class Token(Protocol):
    """Where tokens come from. Both methods raise SchedulerUnavailableError when there is none."""

    async def get(self) -> str:
        """Return a token that should be good for a while."""

    async def renew(self, refused: str) -> str:
        """Return the token to try after this one was refused; it may be the same."""


class FileToken:
    """A token that something else keeps fresh in a file; read at each call."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def get(self) -> str:
        """Read the file."""
        return await asyncio.to_thread(self._read)

    async def renew(self, refused: str) -> str:
        """Read the file; a token that was replaced meanwhile is a new one."""
        del refused
        return await self.get()

    def _read(self) -> str:
        try:
            mode, content = self._path.stat().st_mode, self._path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SchedulerUnavailableError(
                f"no token for slurmrestd: {self._path} cannot be read: {error}"
            ) from None
        if mode & 0o077:
            raise SchedulerUnavailableError(
                f"no token for slurmrestd: {self._path} can be read by others; "
                f"run `chmod 600 {self._path}`"
            )
        return _token_in(content, str(self._path))


class CommandToken:
    """A token that a command prints, such as ``scontrol token lifespan=3600``.

    It is run again a minute before the token expires, or earlier for tokens that live for minutes.
    """

    def __init__(
        self,
        argv: Sequence[str],
        runner: CommandRunner,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._argv = list(argv)
        self._runner = runner
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token = ""
        self._renew_at = 0.0

    async def get(self) -> str:
        """Return the token; at its end, a new one."""
        async with self._lock:
            if not self._token or self._clock() >= self._renew_at:
                await self._ask()
            return self._token

    async def renew(self, refused: str) -> str:
        """Return a new token, unless another caller has got one already."""
        async with self._lock:
            if self._token == refused:
                await self._ask()
            return self._token

    async def _ask(self) -> None:
        try:
            result = await self._runner.run(
                self._argv, environment={}, timeout_seconds=_COMMAND_SECONDS
            )
        except OSError as error:  # what is no program
            raise SchedulerUnavailableError(f"no token for slurmrestd: {error}") from None
        if not result.succeeded:
            # Not in its own words: what it has printed may be a token.
            ending = "no answer" if result.returncode is None else f"exit code {result.returncode}"
            words = f"{self._argv[0]} failed ({ending}): {result.stderr.strip()}"
            raise SchedulerUnavailableError(f"no token for slurmrestd: {words}")
        now = self._clock()
        self._token = _token_in(result.stdout, f"the output of {self._argv[0]}")
        expires = claims(self._token).get("exp")
        if isinstance(expires, int | float):
            self._renew_at = expires - min(_MARGIN_SECONDS, (expires - now) * _LARGEST_MARGIN)
        else:
            self._renew_at = float("inf")


def claims(token: str) -> dict[str, Any]:
    """Return what a token says of itself (``exp``, ``sun``), unverified; {} for none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        content = json.loads(payload)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def named_in(token: str) -> str:
    """Return the user whom a token names, "" when it names none."""
    name = claims(token).get("sun")
    return name if isinstance(name, str) and name.isascii() and name.isprintable() else ""


def _token_in(content: str, place: str) -> str:
    """Return the token of ``SLURM_JWT=TOKEN``, which scontrol prints, or of the token alone."""
    words = content.split()
    marked = [word for word in words if word.startswith("SLURM_JWT=")]
    token = (marked or words or [""])[-1].removeprefix("SLURM_JWT=")
    if not token or not (token.isascii() and token.isprintable()):
        raise SchedulerUnavailableError(f"no token for slurmrestd: there is none in {place}")
    return token
