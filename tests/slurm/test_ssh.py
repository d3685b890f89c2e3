"""Commands through a real sshd: results, deadlines, lost connections, keys that are not right."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from hpc_agent.errors import SubmitAmbiguousError
from hpc_agent.slurm.commands import NOT_FOUND, CommandResult
from hpc_agent.slurm.diagnosis import submit_error
from hpc_agent.slurm.ssh import NOT_CONNECTED, SshRunner
from hpc_agent.slurm.ssh_connection import CONNECT_SECONDS, SshTarget
from hpc_agent.slurm.ssh_shared import SharedConnection
from tests.slurm.waiting import until
from tests.ssh import Sshd, running_sshd

HOSTILE = "a 'b' \"c\" $(touch injected) `touch injected`; echo d\n#e"


@pytest.fixture
async def runner(sshd: Sshd) -> AsyncIterator[SshRunner]:
    opened = SshRunner(SharedConnection(sshd.target))
    yield opened
    await asyncio.to_thread(opened.close)


async def run(runner: SshRunner, *argv: str, seconds: float = 30.0) -> CommandResult:
    return await runner.run(argv, environment={"WORD": HOSTILE}, timeout_seconds=seconds)


async def test_command_gives_its_output_and_its_code(runner: SshRunner) -> None:
    """Both streams and the code, as if it had run here."""
    result = await run(runner, "bash", "-c", 'echo "$WORD" "$FROM_SSHD"; echo oops >&2; exit 3')
    assert (result.stdout, result.stderr, result.returncode) == (f"{HOSTILE} yes\n", "oops\n", 3)


async def test_words_arrive_as_they_are(runner: SshRunner) -> None:
    """No shell on the other side takes a word apart."""
    result = await run(runner, "printf", "%s", HOSTILE)
    assert result.stdout == HOSTILE


async def test_many_commands_share_one_connection(runner: SshRunner, sshd: Sshd) -> None:
    """Each is a channel; sshd has one session process."""
    results = await asyncio.gather(*(run(runner, "echo", str(n)) for n in range(8)))
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(8)]
    assert sshd.sessions() == 1


async def test_large_output_arrives_whole(runner: SshRunner) -> None:
    """More than a channel's window, on both streams at once."""
    script = "head -c 5000000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero | tr '\\0' y >&2"
    result = await run(runner, "bash", "-c", script)
    assert (len(result.stdout), len(result.stderr)) == (5_000_000, 300_000)


async def test_command_over_its_deadline_ends_there_too(runner: SshRunner) -> None:
    """It is the answer that is missing, and no process stays behind."""
    result = await run(runner, "sleep", "4711", seconds=1)
    assert result.returncode is None
    await until(lambda: not _sleeps("4711"), "the command goes on over there")


async def test_absent_command_is_not_found(runner: SshRunner) -> None:
    """As everywhere else."""
    result = await run(runner, "no-such-command")
    assert result.returncode == NOT_FOUND


async def test_lost_connection_leaves_a_submission_in_doubt(runner: SshRunner, sshd: Sshd) -> None:
    """What was sent may have had its effect; the next command connects anew."""
    running = asyncio.create_task(run(runner, "sleep", "60", seconds=60))
    await until(lambda: _sleeps("60"), "the command does not start")
    sshd.end_sessions()
    result = await running
    assert isinstance(submit_error(result), SubmitAmbiguousError)
    assert (await run(runner, "echo", "again")).stdout == "again\n"


async def test_jump_host_is_gone_through(sshd: Sshd, tmp_path: Path) -> None:
    """The target is reached from the jump host."""
    with running_sshd(tmp_path / "inner", {"FROM_SSHD": "inner"}) as inner:
        known = (inner.directory / "known_hosts").read_text()
        both = tmp_path / "known_hosts"
        both.write_text(known + (sshd.directory / "known_hosts").read_text())
        keys = inner.directory / "authorized_keys"
        keys.write_text(keys.read_text() + (sshd.directory / "authorized_keys").read_text())
        target = replace(
            inner.target,
            key_file=sshd.target.key_file,
            known_hosts=both,
            jump_host=f"127.0.0.1:{sshd.port}",
        )
        runner = SshRunner(SharedConnection(target))
        result = await run(runner, "bash", "-c", 'echo "$FROM_SSHD"')
        await asyncio.to_thread(runner.close)
    assert result.stdout == "inner\n"


async def test_target_that_is_silent_behind_a_jump_host_is_given_up(sshd: Sshd) -> None:
    """In time: nobody has a connection meanwhile, nor can the agent be stopped."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        address = silent.getsockname()
        with socket.create_connection(address):  # its queue is full: it answers to no other
            target = replace(sshd.target, port=address[1], jump_host=f"127.0.0.1:{sshd.port}")
            shared = SharedConnection(target)
            began = time.monotonic()
            with pytest.raises(OSError, match=r"by ssh: Timeout opening channel"):
                await asyncio.to_thread(shared.transport)
            await asyncio.to_thread(shared.close)
    assert time.monotonic() - began < CONNECT_SECONDS + 10


async def test_jump_host_of_every_host_is_not_gone_through_to_itself(
    sshd: Sshd, tmp_path: Path
) -> None:
    """`Host *` with `ProxyJump` in ~/.ssh/config holds for the jump host, too."""
    configured = tmp_path / "config"
    configured.write_text(f"Host *\n  ProxyJump 127.0.0.1:{sshd.port}\n")
    runner = SshRunner(SharedConnection(replace(sshd.target, config_file=configured)))
    result = await run(runner, "echo", "here")
    await asyncio.to_thread(runner.close)
    assert result.stdout == "here\n"


async def test_key_of_the_configuration_that_is_not_there_is_passed_over(
    sshd: Sshd, tmp_path: Path
) -> None:
    """As ssh(1) does; without any other the usual ones are tried."""
    missing, configured = tmp_path / "missing", tmp_path / "config"
    target = replace(sshd.target, key_file=None, config_file=configured)
    configured.write_text(
        f"Host *\n  IdentityFile {missing}\n  IdentityFile {sshd.directory}/key\n"
    )
    runner = SshRunner(SharedConnection(target))
    assert (await run(runner, "echo", "here")).stdout == "here\n"
    await asyncio.to_thread(runner.close)
    configured.write_text(f"Host *\n  IdentityFile {missing}\n")
    alone = await run(SshRunner(SharedConnection(target)), "true")
    assert "Unable to connect to 127.0.0.1 by ssh: " in alone.stderr
    assert "No such file" not in alone.stderr


async def test_command_that_closes_its_streams_and_lives_on_meets_its_deadline(
    runner: SshRunner,
) -> None:
    """No thread waits for ever."""
    script = "exec >&- 2>&-; sleep 30"
    result = await run(runner, "bash", "-c", script, seconds=1)
    assert result.returncode is None


WRONG = ["unknown host", "other host key", "other user key", "no key", "no sshd"]


@pytest.mark.parametrize("wrong", WRONG)
async def test_connection_that_cannot_be_made_says_why(
    sshd: Sshd, tmp_path: Path, wrong: str
) -> None:
    """Nothing was sent, so nothing is in doubt; the words say what to do."""
    target, words = _wrong(sshd.target, tmp_path, wrong)
    runner = SshRunner(SharedConnection(target))
    result = await run(runner, "true")
    assert result.returncode == NOT_CONNECTED
    assert "Unable to connect to 127.0.0.1 by ssh: " in result.stderr
    assert words in result.stderr
    assert not isinstance(submit_error(result), SubmitAmbiguousError)
    again = await run(runner, "true")
    assert again.stderr == result.stderr


def _wrong(target: SshTarget, directory: Path, what: str) -> tuple[SshTarget, str]:
    other = directory / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    hosts = directory / "hosts"
    match what:
        case "unknown host":
            hosts.touch()
            return replace(target, known_hosts=hosts), "is not known (ssh-ed25519 SHA256:"
        case "other host key":
            key = " ".join(other.with_suffix(".pub").read_text().split()[:2])
            hosts.write_text(f"[127.0.0.1]:{target.port} {key}\n")
            return replace(target, known_hosts=hosts), "is not the one in known_hosts"
        case "other user key":
            return replace(target, key_file=other), "may not log in to 127.0.0.1"
        case "no key":
            missing = directory / "missing"
            words = f"scheduler.ssh.key_file: {missing} is no file that can be read"
            return replace(target, key_file=missing), words
        case _:
            return replace(target, port=1), "Unable to connect to port 1"


def _sleeps(seconds: str) -> bool:
    found = subprocess.run(["pgrep", "-f", f"^sleep {seconds}$"], check=False, capture_output=True)
    return found.returncode == 0
