"""Wrappers in the place of Slurm's commands, and a login shell that prints, on a real Slurm."""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpc_agent.account import Account
from hpc_agent.errors import JobNotFoundError, SchedulerUnreadableError
from hpc_agent.slurm.cli import SlurmCli, slurm_on_this_host, slurm_over
from hpc_agent.slurm.scheduler import JobRecord, Look, Scheduler
from hpc_agent.slurm.ssh import SshRunner
from hpc_agent.slurm.ssh_shared import SharedConnection
from hpc_agent.slurm.state import JobState
from tests.cluster import SlurmCluster
from tests.slurm.conftest import WriteScript
from tests.slurm.waiting import LIMIT_SECONDS, until_state
from tests.ssh import running_sshd

pytestmark = pytest.mark.slurm

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo")
BANNER = "Welcome to the cluster! 42 jobs wait."
# What a wrapper does with the output of the real command, which is $real.
BEFORE = f'echo \'{BANNER}\'; exec "$real" "$@"'
GLUED = f"printf '%s' '{BANNER}'; exec \"$real\" \"$@\""
AFTER = f'"$real" "$@"; code=$?; echo \'{BANNER}\'; exit $code'
BETWEEN = f'"$real" "$@" | sed "1a {BANNER}"'
HALF = (
    'output=$(mktemp); "$real" "$@" > $output; head -c $(( $(stat -c %s $output) * 3 / 4 )) $output'
)
NOTHING = "exit 0"
NONSENSE = "printf 'no\\000thing \\377\\n17\\n'"


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A job that runs, known before any wrapper was there."""

    job_id: str
    key: str
    since: datetime


@pytest.fixture(scope="module")
def job(
    slurm_cluster_accounting: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Wrapped]:
    """One that runs, in the queue and in accounting."""
    slurm = slurm_on_this_host(slurm_cluster_accounting.environment, burst=1000)
    started = asyncio.run(start(slurm, tmp_path_factory.mktemp("job") / "job.sh"))
    yield started
    asyncio.run(slurm.cancel(started.job_id))


async def start(slurm: SlurmCli, script: Path) -> Wrapped:
    """Submit a job, and return it when it runs."""
    since = datetime.now(UTC) - timedelta(minutes=1)
    key = f"run-{os.urandom(5).hex()}"
    await asyncio.to_thread(
        script.write_text, "#!/bin/bash\n#SBATCH --output=/dev/null\nexec sleep 300\n"
    )
    job_id = await slurm.submit(script, name=f"hpc-agent:{key}", comment=key)
    await until_state(slurm, job_id, JobState.RUNNING)
    await until_accounted(slurm, job_id, since)
    return Wrapped(job_id, key, since)


async def until_accounted(slurm: Scheduler, job_id: str, since: datetime) -> None:
    """Wait until accounting has the job, too."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            look = await slurm.history([job_id], since=since)
            if any(record.state is JobState.RUNNING for record in look.records):
                return
            await asyncio.sleep(0.2)


Wrap = Callable[..., SlurmCli]


@pytest.fixture
def wrap(slurm_cluster_accounting: SlurmCluster, tmp_path: Path) -> Wrap:
    """Return a function that puts wrappers before commands on the PATH."""
    directory = tmp_path / "wrappers"
    directory.mkdir()
    environment = dict(slurm_cluster_accounting.environment)

    def write(what: str, *commands: str) -> SlurmCli:
        for command in commands:
            real = shutil.which(command, path=environment["PATH"])
            script = directory / command
            script.write_text(f"#!/bin/bash\nreal={real}\n{what}\n")
            script.chmod(0o755)
        path = f"{directory}{os.pathsep}{environment['PATH']}"
        return slurm_on_this_host({**environment, "PATH": path}, burst=1000)

    return write


@pytest.mark.parametrize("what", [BEFORE, GLUED, AFTER, BETWEEN])
async def test_lines_of_a_wrapper_are_put_aside(wrap: Wrap, job: Wrapped, what: str) -> None:
    """Before, glued to, after and in between the records of squeue and sacct."""
    slurm = wrap(what, "squeue", "sacct")
    for look in (await slurm.queue(), await slurm.history([job.job_id], since=job.since)):
        record = the(job, look)
        assert (record.state, record.name) == (JobState.RUNNING, f"hpc-agent:{job.key}")
        assert look.is_complete, look.unreadable
        assert look.noise == (BANNER,)
    found = await slurm.find(job.key, since=job.since)
    assert [record.job_id for record in found.records] == [job.job_id]
    assert found.is_complete


async def test_what_a_wrapper_prints_is_logged_once(
    wrap: Wrap, job: Wrapped, caplog: pytest.LogCaptureFixture
) -> None:
    """A look each few seconds would fill the log."""
    caplog.set_level(logging.INFO)
    slurm = wrap(BEFORE, "squeue")
    for _ in range(3):
        the(job, await slurm.queue())
    assert caplog.text.count(BANNER) == 1


@pytest.mark.parametrize("what", [BEFORE, AFTER])
async def test_everything_works_under_a_wrapper_that_talks(
    wrap: Wrap, job: Wrapped, write_script: WriteScript, what: str
) -> None:
    """Each command of each method."""
    slurm = wrap(what, *COMMANDS)
    assert (await slurm.version()).startswith("slurm ")
    assert await slurm.healthy()
    assert {partition.name for partition in await slurm.partitions()} >= {"debug", "batch"}
    assert [node.name for node in await slurm.nodes()] == ["c1", "c2"]
    assert (await slurm.show(job.job_id)).state is JobState.RUNNING
    assert await slurm.max_array_size() == 1001
    assert await slurm.cli_filters() == ""
    waiting = await slurm.submit(
        write_script("true", options=("--hold",)), name="n", comment="c", exclude=["c1"]
    )
    await slurm.cancel(waiting, name="n")
    look = await slurm.queue()
    (record,) = [record for record in look.records if record.job_id == waiting]
    assert record.state is JobState.CANCELLED


@pytest.mark.parametrize("what", [HALF, NOTHING, NONSENSE])
async def test_output_that_is_cut_or_none_teaches_nothing(
    wrap: Wrap, job: Wrapped, write_script: WriteScript, what: str
) -> None:
    """No job is absent, none is unknown, no partition is gone: it cannot be read."""
    slurm = wrap(what, "squeue", "sacct", "sinfo", "scontrol")
    for look in (
        await slurm.queue(),
        await slurm.history([job.job_id], since=job.since),
        await slurm.find(job.key, since=job.since),
    ):
        assert not look.is_complete
    for ask in (
        slurm.partitions,
        slurm.nodes,
        slurm.version,
        slurm.healthy,
        slurm.max_array_size,
        slurm.cli_filters,
        lambda: slurm.positions([job.job_id]),
    ):
        with pytest.raises(SchedulerUnreadableError):
            await ask()
    if what != HALF:  # half of scontrol's text may have all that is needed
        with pytest.raises(SchedulerUnreadableError):
            await slurm.show(job.job_id)


async def test_only_slurm_says_that_a_job_is_unknown(wrap: Wrap, job: Wrapped) -> None:
    """With a banner before the error, too."""
    slurm = wrap(BEFORE, "scontrol")
    with pytest.raises(JobNotFoundError):
        await slurm.show("987654")


async def test_a_shell_that_prints_is_no_trouble_over_ssh(
    slurm_cluster_accounting: SlurmCluster, job: Wrapped, tmp_path: Path
) -> None:
    """As a .bashrc with an ``echo`` does, which sshd's shell reads before each command."""
    variables = {
        name: slurm_cluster_accounting.environment[name] for name in ("SLURM_CONF", "PATH")
    }
    lines = ("Subsystem sftp internal-sftp", f"ForceCommand echo '{BANNER}'; {_ORIGINAL}")
    with running_sshd(tmp_path / "sshd", variables, more=lines) as sshd:
        runner = SshRunner(SharedConnection(sshd.target))
        slurm = slurm_over(runner, burst=1000)
        try:
            for look in (
                await slurm.queue(),
                await slurm.history([job.job_id], since=job.since),
            ):
                assert the(job, look).state is JobState.RUNNING
                assert (look.is_complete, look.noise) == (True, ())
            assert (await slurm.show(job.job_id)).state is JobState.RUNNING
            assert [node.name for node in await slurm.nodes()] == ["c1", "c2"]
            shown = await runner.run(
                ["getent", "passwd", getpass.getuser()], environment={}, timeout_seconds=10
            )
            assert Account.parse(shown.stdout) == Account.here()
        finally:
            await asyncio.to_thread(runner.close)


_ORIGINAL = 'exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"'


def the(job: Wrapped, look: Look) -> JobRecord:
    """Return the record of the job."""
    (record,) = [record for record in look.records if record.job_id == job.job_id]
    return record
