"""Where the agent's token comes from, by real files and commands, and when another one is got."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpc_agent.config import AgentConfig, TokenSource, parse_config, read_token
from hpc_agent.config.token_command import printed_by
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.errors import ConfigError, ControlPlaneAuthError
from tests.agent.gateway import scripted_gateway
from tests.control_plane.running import poll
from tests.relay.fake_control_plane import Received

ENVIRONMENT = {"PATH": os.environ["PATH"]}


def config_with(**control_plane: Any) -> AgentConfig:
    content = {"control_plane": {"url": "https://x", **control_plane}, "work_dir": "/w"}
    return parse_config(content, source="test")


def command(directory: Path, script: str) -> list[str]:
    """Return a command that runs this shell script."""
    path = directory / "print-token"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return [str(path)]


def private(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def test_token_comes_from_a_private_file(tmp_path: Path) -> None:
    """A token that others can read is refused with the command that mends it."""
    path = private(tmp_path / "token", "secret\n")
    config = config_with(token_file=str(path))
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_token(config, {})
    path.chmod(0o600)
    assert read_token(config, {}) == "secret"


def test_missing_token_is_told() -> None:
    """Without a token nothing can work, and the message says where it is looked for."""
    with pytest.raises(ConfigError, match=r"control_plane\.token_file or token_command"):
        read_token(config_with(), {})


@pytest.mark.parametrize("text", ["two words", "sec\x01ret", "ge\u2028heim", "two\nlines"])
def test_what_is_no_token_is_not_shown(tmp_path: Path, text: str) -> None:
    """An HTTP library would show it in its error."""
    config = config_with(token_file=str(private(tmp_path / "token", text)))
    with pytest.raises(ConfigError, match="is no token") as raised:
        read_token(config, {})
    assert text not in str(raised.value)


def test_credential_of_the_service_is_the_token(tmp_path: Path) -> None:
    """Before the environment, which more processes see; settings of agent.yaml win."""
    (tmp_path / "hpc-agent-token").write_text("handed-over\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "DAGSTER_CLOUD_AGENT_TOKEN": "inherited"}
    assert read_token(config_with(), environ) == "handed-over"
    path = private(tmp_path / "token", "configured")
    assert read_token(config_with(token_file=str(path)), environ) == "configured"
    (tmp_path / "hpc-agent-token").unlink()
    assert read_token(config_with(), environ) == "inherited"


def test_file_and_command_are_not_set_together(tmp_path: Path) -> None:
    """Nobody would know which one counts."""
    with pytest.raises(ConfigError, match="not both"):
        config_with(token_file="t", token_command=["c"])


def test_command_prints_the_token(tmp_path: Path) -> None:
    """It has the agent's environment, less a token in it."""
    argv = command(tmp_path, 'echo "$KIND-token$DAGSTER_CLOUD_AGENT_TOKEN"')
    environ = {**ENVIRONMENT, "KIND": "vault", "DAGSTER_CLOUD_AGENT_TOKEN": "x"}
    assert read_token(config_with(token_command=argv), environ) == "vault-token"


def test_command_that_fails_says_so_and_not_what_it_has_printed(tmp_path: Path) -> None:
    """Its errors are for people; its output may be a token."""
    argv = command(tmp_path, "echo secret; echo no ticket >&2; exit 3")
    with pytest.raises(ControlPlaneAuthError, match=r"failed \(exit code 3\): no ticket") as raised:
        read_token(config_with(token_command=argv), ENVIRONMENT)
    assert "secret" not in str(raised.value)


def test_command_that_is_no_program_says_so(tmp_path: Path) -> None:
    """That is a matter of agent.yaml, and no other try mends it."""
    with pytest.raises(ConfigError, match="no program of this name"):
        read_token(config_with(token_command=[str(tmp_path / "none")]), ENVIRONMENT)


def test_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    """Also when it is only a child that keeps the output open."""
    argv = command(tmp_path, f"sleep 300 & echo $! > {tmp_path}/pid; echo token")
    started = time.monotonic()
    with pytest.raises(ControlPlaneAuthError, match=r"gave no answer in 0\.5 s"):
        printed_by(argv, ENVIRONMENT, seconds=0.5)
    assert time.monotonic() - started < 10
    child = psutil.Process(int((tmp_path / "pid").read_text()))
    with contextlib.suppress(psutil.NoSuchProcess):
        poll(lambda: child.status() == psutil.STATUS_ZOMBIE, "the child lives", 10)


@pytest.mark.parametrize("stream", ["1", "2"])
def test_command_that_prints_without_end_is_ended(tmp_path: Path, stream: str) -> None:
    """A few kilobytes are enough for any token."""
    with pytest.raises(ControlPlaneAuthError, match="printed more than"):
        printed_by(command(tmp_path, f"exec yes >&{stream}"), ENVIRONMENT)


async def test_refused_token_is_renewed_and_the_call_made_again(tmp_path: Path) -> None:
    """Whoever rotates it needs to tell nobody, and nothing fails meanwhile."""
    argv = command(tmp_path, f"echo x >> {tmp_path}/runs; wc -l < {tmp_path}/runs")
    good = {"1"}

    def answer(call: Received) -> tuple[int, Any]:
        if call.headers["dagster-cloud-api-token"] in good:
            return 200, {"data": {"ok": True}}
        return 401, {"error": "who are you?"}

    with scripted_gateway(answer) as gateway:
        config = config_with(url=gateway.url, token_command=argv)
        token = TokenSource(config, pause_seconds=0)
        settings = config.control_plane
        async with AgentApi(settings, token=token, renew=token.renew, agent_id="a") as api:
            await api.graphql("{ ok }", {})
            await api.graphql("{ ok }", {})
            assert (tmp_path / "runs").read_text() == "x\n"
            good = {"2"}
            await api.graphql("{ ok }", {})
            assert (tmp_path / "runs").read_text() == "x\nx\n"


async def test_command_is_not_run_for_every_refused_call(tmp_path: Path) -> None:
    """A control plane that refuses everything makes no storm of it."""
    argv = command(tmp_path, f"echo x >> {tmp_path}/runs; echo same")
    with scripted_gateway(lambda _: (401, {})) as gateway:
        config = config_with(url=gateway.url, token_command=argv)
        token = TokenSource(config, pause_seconds=60)
        settings = config.control_plane
        async with AgentApi(settings, token=token, renew=token.renew, agent_id="a") as api:
            for _ in range(5):
                with pytest.raises(ControlPlaneAuthError):
                    await api.graphql("{ ok }", {})
        assert len(gateway.received) == 5
    assert (tmp_path / "runs").read_text() == "x\n"


async def test_renewal_that_fails_leaves_the_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be good again; and why there is no other one is in the log."""
    argv = command(tmp_path, f"test ! -e {tmp_path}/away && echo token")
    token = TokenSource(config_with(token_command=argv), pause_seconds=0)
    (tmp_path / "away").touch()
    await token.renew("token")
    assert token() == "token"
    assert "failed (exit code 1)" in caplog.text
