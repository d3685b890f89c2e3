"""Login shells that are no sh, and start-up files that print or end: all that goes over ssh."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hpc_agent.errors import SchedulerUnavailableError, SubmitAmbiguousError
from hpc_agent.jobs.node_program import build_node_program
from hpc_agent.slurm.diagnosis import submit_error
from hpc_agent.slurm.ssh import NOT_CONNECTED, SshRunner
from hpc_agent.slurm.ssh_files import SftpFiles
from hpc_agent.slurm.ssh_forward import RemotePort
from hpc_agent.slurm.ssh_shared import SharedConnection
from tests.ssh import Login, Sshd, running_sshd

HOSTILE = "a 'b' \"c\" $(touch injected) `touch injected`; \\\\ \\' !! ^a^b * {x} %d\n#e\nü"
PRINTS = "echo 'Welcome! 42 jobs wait.'\necho 'Maintenance on Sunday' >/dev/stderr\n"
# Where tcsh and others start sftp-server, which internal-sftp does not.
BY_SHELL = ("Subsystem sftp /usr/lib/openssh/sftp-server",)
TALKATIVE = {
    "bash": Login("bash", {".bashrc": f"set -eu\n{PRINTS}"}),
    "tcsh": Login("tcsh", {".cshrc": f"{PRINTS}alias printf false\n"}),
    "fish": Login("fish", {".config/fish/config.fish": PRINTS}),
}
FROM = {"FROM_SSHD": "yes"}
MUTE = {
    "exits": Login("bash", {".bashrc": f"{PRINTS}exit 3\n"}),
    "reads": Login("bash", {".bashrc": f"{PRINTS}read -r answer\n"}),
    "is another": Login("bash", {".bashrc": f"{PRINTS}exec cat\n"}),
}


@pytest.fixture(scope="module", params=TALKATIVE)
def talkative(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sshd]:
    login = TALKATIVE[request.param]
    with running_sshd(tmp_path_factory.mktemp("sshd"), FROM, more=BY_SHELL, login=login) as running:
        yield running


@pytest.fixture
async def shared(talkative: Sshd) -> AsyncIterator[SharedConnection]:
    opened = SharedConnection(talkative.target)
    yield opened
    await asyncio.to_thread(opened.close)


async def test_command_has_its_words_and_its_output_alone(shared: SharedConnection) -> None:
    """No shell takes a word apart, and nothing of its start-up is in either stream."""
    runner = SshRunner(shared)
    script = 'printf "%s|%s" "$1" "$WORD"; echo oops >&2; exit 3'
    argv = ["bash", "-c", script, "-", HOSTILE]
    result = await runner.run(argv, environment={"WORD": HOSTILE}, timeout_seconds=30)
    assert (result.stdout, result.stderr) == (f"{HOSTILE}|{HOSTILE}", "oops\n")
    assert result.returncode == 3


async def test_files_are_written_and_read(shared: SharedConnection, tmp_path: Path) -> None:
    """Although what is printed breaks the SFTP that sshd starts."""
    files, path = SftpFiles(shared), tmp_path / "file"
    await asyncio.to_thread(files.write, path, HOSTILE)
    assert (await asyncio.to_thread(files.read, path)).decode() == HOSTILE


async def test_port_is_opened(shared: SharedConnection, tmp_path: Path) -> None:
    """The program that listens over there is started, and is heard."""
    server = await asyncio.start_server(_greet, "127.0.0.1", 0)
    port = RemotePort(shared, local_port=server.sockets[0].getsockname()[1])
    program = [sys.executable, str(build_node_program(tmp_path)), "--forward"]
    settings = {"bind": "127.0.0.1", "port": 0, "allow": [], "must": False}
    listening = await asyncio.to_thread(port.open, program, settings)
    reader, writer = await asyncio.open_connection(listening.host, listening.port)
    assert await reader.read() == b"hello"
    writer.close()
    await asyncio.to_thread(port.close)
    server.close()


async def _greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    writer.close()


@pytest.mark.parametrize("login", MUTE)
async def test_shell_that_never_comes_to_the_command_is_told(tmp_path: Path, login: str) -> None:
    """Nothing was done, so nothing is in doubt; what it printed is shown, not obeyed."""
    with running_sshd(tmp_path / "sshd", FROM, more=BY_SHELL, login=MUTE[login]) as sshd:
        shared = SharedConnection(sshd.target)
        result = await SshRunner(shared).run(["true"], environment={}, timeout_seconds=30)
        assert result.returncode == NOT_CONNECTED
        assert "did not come to the command" in result.stderr
        assert "Welcome! 42 jobs wait." in result.stderr
        assert not isinstance(submit_error(result), SubmitAmbiguousError)
        await asyncio.to_thread(shared.close)


async def test_files_behind_a_shell_that_ends_are_told(tmp_path: Path) -> None:
    """In words that lead to the start-up file."""
    with running_sshd(tmp_path / "sshd", FROM, more=BY_SHELL, login=MUTE["exits"]) as sshd:
        shared = SharedConnection(sshd.target)
        with pytest.raises(SchedulerUnavailableError, match=r"no access to files.*Welcome! 42"):
            await asyncio.to_thread(SftpFiles(shared).names, tmp_path)
        await asyncio.to_thread(shared.close)
