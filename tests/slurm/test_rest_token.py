"""Tokens for slurmrestd: from a file, and from a command."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from hpc_agent.errors import (
    SchedulerUnavailableError,
)
from hpc_agent.slurm.commands import ProcessRunner
from hpc_agent.slurm.rest_token import CommandToken, FileToken, claims


def _token(**content: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    return f"head.{payload}.signature"


def _token_command(directory: Path, lifespan: int) -> list[str]:
    """Return a command that prints tokens of 60 s, each with its number, and counts its runs."""
    script = directory / "make-token"
    script.write_text(
        "#!/usr/bin/env python3\n"
        "import base64, json, pathlib\n"
        f"runs = pathlib.Path({str(directory / 'runs')!r})\n"
        "number = len(runs.read_text()) if runs.exists() else 0\n"
        "runs.write_text('x' * (number + 1))\n"
        f"content = {{'exp': {lifespan} * (number + 1), 'sun': 'me', 'n': number}}\n"
        "payload = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip('=')\n"
        "print(f'SLURM_JWT=head.{payload}.signature')\n"
    )
    script.chmod(0o755)
    return [str(script)]


async def test_token_of_a_command_is_renewed_before_it_expires(tmp_path: Path) -> None:
    """A minute before, or at three quarters of a short life; and when it was refused."""
    now = 0.0
    command = _token_command(tmp_path, 1000)
    token = CommandToken(command, ProcessRunner(), clock=lambda: now)
    first = await token.get()
    assert claims(first) == {"exp": 1000, "sun": "me", "n": 0}
    now = 939.0
    assert await token.get() == first
    now = 941.0
    second = await token.get()
    assert claims(second)["n"] == 1
    assert await token.renew(first) == second
    assert claims(await token.renew(second))["n"] == 2


async def test_token_command_that_fails_says_so(tmp_path: Path) -> None:
    """What it printed is not shown: it may be a token."""
    script = tmp_path / "fail"
    script.write_text("#!/bin/sh\necho SLURM_JWT=secret\necho no key >&2\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(
        SchedulerUnavailableError, match=r"fail failed \(exit code 3\): no key"
    ) as e:
        await CommandToken([str(script)], ProcessRunner()).get()
    assert "secret" not in str(e.value)


async def test_token_command_that_is_no_program_says_so(tmp_path: Path) -> None:
    """A text without an interpreter, for example."""
    text = tmp_path / "text"
    text.write_text("no program\n")
    text.chmod(0o755)
    with pytest.raises(SchedulerUnavailableError, match="Exec format error"):
        await CommandToken([str(text)], ProcessRunner()).get()


async def test_token_file_is_read_again_and_must_be_private(tmp_path: Path) -> None:
    """Whoever rotates it needs to tell nobody."""
    file = tmp_path / "token"
    token = FileToken(file)
    with pytest.raises(SchedulerUnavailableError, match="cannot be read"):
        await token.get()
    file.touch(mode=0o600)
    with pytest.raises(SchedulerUnavailableError, match="there is none"):
        await token.get()
    file.write_text("not\x01a\x7ftoken")  # an HTTP library would show it in its error
    with pytest.raises(SchedulerUnavailableError, match="there is none"):
        await token.get()
    for content in (_token(n=1), _token(n=2)):
        file.write_text(f"SLURM_JWT={content}\n")
        assert await token.get() == content
    file.chmod(0o644)
    with pytest.raises(SchedulerUnavailableError, match="chmod 600"):
        await token.get()
