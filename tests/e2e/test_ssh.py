"""The agent beside the cluster: commands, files and the relay's port over one SSH connection.

It runs where the cluster's file system is not mounted, and listens on its own loopback address
alone.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator

import pytest

from hpc_agent.demo.cluster import ClusterChoice
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Directories, Stack
from tests.e2e.conftest import running_stack
from tests.e2e.test_runs import nap, wait_running
from tests.ssh import Login, Sshd, running_sshd

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Behind a login shell that is no sh(1) and prints, also where sshd starts SFTP by it."""
    login = Login("tcsh", {".cshrc": "echo 'Welcome! 42 jobs wait.'\n"})
    more = ("Subsystem sftp /usr/lib/openssh/sftp-server",)
    variables = {"FROM_SSHD": "yes"}
    directory = tmp_path_factory.mktemp("sshd")
    with running_sshd(directory, variables, more=more, login=login) as running:
        yield running


@pytest.fixture(scope="module")
def stack(on_slurm: ClusterChoice, sshd: Sshd) -> Iterator[Stack]:
    """A stack whose agent has no Slurm command of its own."""
    target = sshd.target
    ssh = {
        "host": target.host,
        "port": target.port,
        "user": getpass.getuser(),
        "key_file": str(target.key_file),
        "known_hosts": str(target.known_hosts),
    }
    scheduler = {"transport": "ssh", "ssh": ssh, "poll_seconds": 2, "commands_per_second": 20}
    with running_stack(
        on_slurm,
        _without_shared_files,
        relay={"bind": "127.0.0.1"},
        scheduler=scheduler,
    ) as started:
        yield started


def _without_shared_files(directories: Directories) -> list[str]:
    """A mount namespace in which an empty directory is where the shared one was."""
    hide = 'mount -t tmpfs none "$0" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", hide, str(directories.shared)]


def test_run_goes_through_while_the_connection_is_cut(stack: Stack, sshd: Sshd) -> None:
    """Jobs do not need it, and the agent connects anew: the run ends well, the next one too."""
    assert sshd.sessions() == 1
    run_id = nap(stack, 8)
    wait_running(stack, run_id)
    sshd.end_sessions()
    assert stack.wait_finished(run_id) == "SUCCESS"
    logs = stack.run_command("logs", run_id, "--config", str(stack.directories.agent_yaml))
    assert "RUN_SUCCESS" in logs
    again = nap(stack, 0)
    assert stack.wait_finished(again) == "SUCCESS"
    wait_for(
        "the end of its job is not seen",
        lambda: stack.job_of(run_id=again)["state"] == "COMPLETED",
        seconds=60,
        alive=[stack.agent],
    )
    assert sshd.sessions() == 1
