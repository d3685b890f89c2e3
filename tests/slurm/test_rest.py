"""slurmrestd beyond the contract: the jobs it makes, accounting, tokens, lost answers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.errors import (
    JobNotFoundError,
    SchedulerUnavailableError,
    SubmitAmbiguousError,
    SubmitRefusedError,
)
from hpc_agent.slurm.cli import SlurmCli, slurm_on_this_host
from hpc_agent.slurm.commands import ProcessRunner
from hpc_agent.slurm.rest import SlurmRest, slurm_by_rest
from hpc_agent.slurm.rest_client import Target
from hpc_agent.slurm.rest_token import CommandToken, FileToken, claims
from hpc_agent.slurm.rest_versions import DIALECTS
from hpc_agent.slurm.scheduler import array_id, task_id
from hpc_agent.slurm.state import JobState
from tests.cluster import SlurmCluster
from tests.slurm.conftest import WriteScript
from tests.slurm.waiting import LIMIT_SECONDS, until, until_final, until_state, until_text


@pytest.fixture
def cli(slurm_cluster_rest: SlurmCluster) -> SlurmCli:
    """The commands of the same cluster, to compare with."""
    return slurm_on_this_host(slurm_cluster_rest.environment, burst=1000)


def make_token(cluster: SlurmCluster, lifespan: int = 600) -> str:
    done = subprocess.run(
        ["scontrol", "token", f"lifespan={lifespan}"],
        env=dict(cluster.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip().removeprefix("SLURM_JWT=")


@asynccontextmanager
async def opened(url: str, file: Path, **more: Any) -> AsyncIterator[SlurmRest]:
    scheduler = slurm_by_rest(Target(url=url), FileToken(file), burst=1000, **more)
    try:
        yield scheduler
    finally:
        await scheduler.close()


@pytest.fixture
def token_file(slurm_cluster_rest: SlurmCluster, tmp_path: Path) -> Path:
    """A file with a good token."""
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(make_token(slurm_cluster_rest))
    return file


SAME = [
    "--begin=now+1hour",
    "--cpus-per-task=2 --ntasks=2",
    "--dependency=singleton",
    "--exclude=c1",
    "--exclusive",
    "--exclusive=user",
    "--gpus=1 --cpus-per-gpu=2 --mem-per-gpu=200M",
    "--gpus-per-node=1",
    "--gpus-per-task=1 --ntasks=2",
    "--gres=gpu:1",
    "--mail-type=FAIL --mail-user=me@example.org",
    "--mem=1G",
    "--mem=0",
    "--mem-per-cpu=100M",
    "--nice=50",
    "--nodelist=c[1-2]",
    "--nodes=1-2",
    "--nodes=2 --ntasks-per-node=2",
    "--ntasks=3 --error=/tmp/%j.err --open-mode=append",
    "--partition=debug,batch",
    "--no-requeue",
    "--signal=USR1@30",
    "--time=00:00:90 --deadline=2030-01-31T18:00",
    "--time=1-12:00:00 --partition=batch",
    "--tmp=10M",
    "--array=0-2",
]


@pytest.mark.slurm
@pytest.mark.parametrize("options", SAME)
async def test_job_is_the_one_that_sbatch_would_make(
    rest: SlurmRest,
    cli: SlurmCli,
    slurm_cluster_rest: SlurmCluster,
    write_script: WriteScript,
    options: str,
) -> None:
    """``scontrol show job`` prints the same of both, but for ids and times."""
    script = write_script("true", options=("--hold", "--chdir=/tmp", options))
    ids = [await each.submit(script, name="n", comment="c") for each in (cli, rest)]
    shown = [_shown(slurm_cluster_rest, job_id) for job_id in ids]
    for job_id in ids:
        await cli.cancel(job_id)
    assert shown[1] == shown[0]


# Ids, times, what depends on the time, and how the job came in. Beside these, TresPerTask: there
# sbatch says the CPUs of a task a second time since 24.05.
_DIFFERENT = frozenset(
    [
        "AccrueTime",
        "AllocNode:Sid",
        "ArrayJobId",
        "Command",
        "EligibleTime",
        "EndTime",
        "JobId",
        "LastSchedEval",
        "OOMKillStep",
        "Priority",
        "Reason",
        "SLUID",
        "Scheduler",
        "StartTime",
        "StdErr",
        "StdOut",
        "SubmitLine",
        "SubmitTime",
    ]
)


def _shown(cluster: SlurmCluster, job_id: str) -> set[str]:
    done = subprocess.run(
        ["scontrol", "show", "job", "--oneliner", job_id],
        env=dict(cluster.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.splitlines()[0].split()
    fields = {word for word in words if re.match(r"[A-Z][\w:/]*=", word)}
    return {
        field
        for field in fields
        if field.partition("=")[0] not in _DIFFERENT and not field.startswith("TresPerTask=cpu")
    }


@pytest.mark.slurm
async def test_refusal_is_in_words_of_slurm(rest: SlurmRest, write_script: WriteScript) -> None:
    """As sbatch says it."""
    script = write_script("true", options=("--partition=nope",))
    with pytest.raises(SubmitRefusedError, match=r"[Ii]nvalid partition"):
        await rest.submit(script, name="n", comment="c")


@pytest.mark.slurm
async def test_tasks_of_an_array_are_jobs(
    rest: SlurmRest, write_script: WriteScript, tmp_path: Path
) -> None:
    """Waiting, running and ended ones, in every query; ``%a`` in --output is the index."""
    held = write_script("sleep 300", options=("--hold",))
    waiting = await rest.submit_array(held, name="n", comment="arr", size=3)
    ids = [task_id(waiting, index) for index in range(3)]
    queued = {job.job_id: job.state for job in (await rest.queue()).records}
    assert [queued[job_id] for job_id in ids] == [JobState.PENDING] * 3
    assert (await rest.show(ids[1])).job_id == ids[1]
    with pytest.raises(JobNotFoundError):
        await rest.show(task_id(waiting, 99))
    await rest.cancel(ids[1])
    states = {
        job.job_id: job.state
        for job in (await rest.queue()).records
        if array_id(job.job_id) == waiting
    }
    assert states.pop(ids[1], JobState.CANCELLED) is JobState.CANCELLED
    assert states == dict.fromkeys((ids[0], ids[2]), JobState.PENDING)
    await rest.cancel(waiting)

    script = write_script(
        'echo "$SLURM_ARRAY_TASK_ID"; exit "$SLURM_ARRAY_TASK_ID"',
        options=(f"--output={tmp_path}/%A_%a.txt",),
    )
    array = await rest.submit_array(script, name="n", comment="c", size=2)
    ends = [await until_final(rest, task_id(array, index)) for index in range(2)]
    assert [(end.state, end.exit_code) for end in ends] == [
        (JobState.COMPLETED, 0),
        (JobState.FAILED, 1),
    ]
    assert await until_text(tmp_path / f"{array}_1.txt") == "1\n"


@pytest.mark.slurm
async def test_array_that_is_too_large_is_refused(
    rest: SlurmRest, write_script: WriteScript
) -> None:
    """As a whole, so that nobody needs to know the limit beforehand."""
    size = await rest.max_array_size()
    assert size == 1001
    script = write_script("true", options=("--hold",))
    with pytest.raises(SubmitRefusedError, match="Invalid job array"):
        await rest.submit_array(script, name="n", comment="too large", size=size + 1)


@pytest.mark.slurm
async def test_accounting_says_what_the_commands_say(
    rest: SlurmRest, cli: SlurmCli, write_script: WriteScript, tmp_path: Path
) -> None:
    """History and usage of an ended job, and of one that was found by its comment alone."""
    since = datetime.now(UTC) - timedelta(minutes=1)
    key = f"run-{os.urandom(5).hex()}"
    burn = tmp_path / "burn.py"
    burn.write_text(
        "import time\n"
        "kept, end = b'x' * 50_000_000, time.time() + 7\n"
        "while time.time() < end:\n    pass\n"
    )
    script = write_script(f"python3 {burn}", "exit 3", options=("--mem=300M", "--gpus=1"))
    job_id = await rest.submit(script, name="n", comment=key)
    await until_final(rest, job_id)
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (
        job_id in (used := await rest.usage([job_id], since=since)) and used[job_id].cpu_seconds
    ):
        assert time.monotonic() < deadline, used
        await asyncio.sleep(0.3)
    (there,) = (await rest.history([job_id], since=since)).records
    (here,) = (await cli.history([job_id], since=since)).records
    # slurmrestd 22.05 sends SUCCESS and 0 for every exit code that accounting has.
    code = None if (await rest.version()).startswith("slurm 22.05") else 3
    assert (there.state, there.exit_code, there.name) == (JobState.FAILED, code, "n")
    for name in ("submit_time", "start_time", "end_time", "nodes", "comment", "time_limit_seconds"):
        assert getattr(there, name) == getattr(here, name), name
    sacct = (await cli.usage([job_id], since=since))[job_id]
    mine = (await rest.usage([job_id], since=since))[job_id]
    assert mine.max_rss_bytes and sacct.max_rss_bytes
    assert abs(mine.max_rss_bytes - sacct.max_rss_bytes) < 2 << 20
    assert mine.cpu_seconds and sacct.cpu_seconds
    assert abs(mine.cpu_seconds - sacct.cpu_seconds) < 0.1
    same = ("elapsed_seconds", "allocated_cpus", "requested_memory_bytes", "nodes", "gpus")
    for name in (*same, "billing", "energy_joules"):
        assert getattr(mine, name) == getattr(sacct, name), name
    assert mine.billing
    assert {job.job_id for job in (await rest.find(key, since=since)).records} == {job_id}


@pytest.mark.slurm
async def test_partitions_are_known_as_the_commands_know_them(
    rest: SlurmRest, cli: SlurmCli
) -> None:
    """All but the groups of the user, and whether associations are enforced."""
    there, here = await rest.partition_facts(), await cli.partition_facts()
    assert there.groups is None
    assert replace(there, groups=here.groups, enforces_associations=False, nodes=()) == replace(
        here, nodes=()
    )
    assert [(node.name, node.gres, node.features) for node in there.nodes] == [
        (node.name, node.gres, node.features) for node in here.nodes
    ]


@pytest.mark.slurm
async def test_jobs_of_other_users_are_not_in_the_queue(
    slurm_cluster_rest: SlurmCluster, rest: SlurmRest, token_file: Path, write_script: WriteScript
) -> None:
    """slurmrestd sends them all."""
    job_id = await rest.submit(write_script("true", options=("--hold",)), name="n", comment="c")
    target = Target(url=slurm_cluster_rest.restd, user="daemon")
    other = slurm_by_rest(target, FileToken(token_file), burst=1000)
    assert job_id in {job.job_id for job in (await rest.queue()).records}
    try:
        found = (await other.queue()).records
    except SchedulerUnavailableError:
        found = ()  # a token of one user is none of the other's
    finally:
        await other.close()
        await rest.cancel(job_id)
    assert not found


@pytest.mark.slurm
async def test_token_that_expires_is_replaced(
    slurm_cluster_rest: SlurmCluster, tmp_path: Path
) -> None:
    """Two seconds of life, three of waiting; in between nobody notices."""
    runs = tmp_path / "runs"
    script = tmp_path / "token-command"
    script.write_text(f"#!/bin/sh\necho run >> {runs}\nexec scontrol token lifespan=4\n")
    script.chmod(0o755)
    token = CommandToken([str(script)], ProcessRunner(slurm_cluster_rest.environment))
    scheduler = slurm_by_rest(Target(url=slurm_cluster_rest.restd), token, burst=1000)
    assert await scheduler.healthy()
    first = await token.get()
    await until(lambda: time.time() > claims(first)["exp"] + 1, "the token's end")
    await scheduler.queue()
    await scheduler.close()
    assert len(runs.read_text().splitlines()) == 2


@pytest.mark.slurm
@pytest.mark.parametrize("content", ["no.such.token", "x"])
async def test_wrong_token_is_said_and_nothing_is_concluded(
    slurm_cluster_rest: SlurmCluster, token_file: Path, write_script: WriteScript, content: str
) -> None:
    """Neither that the queue is empty, nor that a job is unknown, nor that none was made."""
    await asyncio.to_thread(token_file.write_text, content)
    target = Target(url=slurm_cluster_rest.restd, user="root")
    scheduler = slurm_by_rest(target, FileToken(token_file), burst=1000)
    since = datetime.now(UTC) - timedelta(minutes=1)
    try:
        with pytest.raises(SchedulerUnavailableError) as caught:
            await scheduler.queue()
        assert content not in str(caught.value).replace("hpc-agent", "").replace("exp", "")
        assert "token" in str(caught.value)
        with pytest.raises(SchedulerUnavailableError):
            await scheduler.show("1")
        with pytest.raises(SchedulerUnavailableError):
            await scheduler.find("c", since=since)
        with pytest.raises(SchedulerUnavailableError):
            await scheduler.cancel("1")
        assert not await scheduler.healthy()
        with pytest.raises((SchedulerUnavailableError, SubmitAmbiguousError)):
            await scheduler.submit(write_script("true"), name="n", comment="c")
    finally:
        await scheduler.close()


@pytest.mark.slurm
async def test_unsupported_version_of_the_api_is_named(
    slurm_cluster_rest: SlurmCluster, token_file: Path
) -> None:
    """With what slurmrestd has."""
    async with opened(slurm_cluster_rest.restd, token_file, versions=["v0.0.1"]) as scheduler:
        with pytest.raises(
            SchedulerUnavailableError, match=r"it has v0\.0\.\d\d.* speaks v0\.0\.1"
        ):
            await scheduler.queue()


@pytest.mark.slurm
async def test_older_versions_of_the_api_do_as_well(
    slurm_cluster_rest: SlurmCluster, token_file: Path, write_script: WriteScript
) -> None:
    """Every supported one that this slurmrestd has runs a job."""
    async with opened(slurm_cluster_rest.restd, token_file) as scheduler:
        release = await scheduler.version()
    for version in DIALECTS:
        async with opened(slurm_cluster_rest.restd, token_file, versions=[version]) as scheduler:
            try:
                assert await scheduler.version() == release
            except SchedulerUnavailableError as absent:
                assert "offers no version" in str(absent)
                continue
            job_id = await scheduler.submit(write_script("exit 3"), name=version, comment="c")
            assert (await until_final(scheduler, job_id)).exit_code == 3
            assert {node.cpus for node in await scheduler.nodes()} == {4}
            assert {each.max_time_seconds for each in await scheduler.partitions()} == {
                1800,
                7 * 86400,
            }


@pytest.fixture
def socket(slurm_cluster_rest: SlurmCluster) -> Iterator[Path]:
    """Where another slurmrestd of the same cluster listens."""
    # Not below tmp_path, which only root may enter: slurmrestd runs as daemon.
    with tempfile.TemporaryDirectory(prefix="hpc-restd-") as name:
        directory = Path(name)
        directory.chmod(0o777)
        socket = directory / "socket"
        path = f"{slurm_cluster_rest.environment['PATH']}:/usr/sbin:/sbin"
        process = subprocess.Popen(
            ["slurmrestd", "-a", "rest_auth/jwt", "-u", "daemon", "-g", "daemon", f"unix:{socket}"],
            env={**slurm_cluster_rest.environment, "PATH": path, "SLURM_JWT": "daemon"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield socket
        finally:
            process.terminate()
            process.wait(timeout=20)


@pytest.mark.slurm
async def test_unix_socket_does_as_well(socket: Path, token_file: Path) -> None:
    """A slurmrestd that listens on nothing else."""
    await until(socket.exists, "the socket")
    async with opened(f"unix://{socket}", token_file) as scheduler:
        assert await scheduler.healthy()
        await scheduler.queue()


class Proxy:
    """A TCP proxy; instead of the answer to certain requests it ends the connection.

    ``once``: each of them is cut for the first time only.
    """

    def __init__(self, url: str) -> None:
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)
        self.cuts: Sequence[bytes] = ()
        self.once = False
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self.host, self.port)
        head = await reader.readuntil(b"\r\n\r\n")
        back.write(head + await reader.readexactly(_length(head)))
        answer = await there.readuntil(b"\r\n\r\n")
        answer += await there.readexactly(_length(answer))
        cuts = [cut for cut in self.cuts if cut in head]
        if self.once:
            self.cuts = [cut for cut in self.cuts if cut not in cuts]
        if not cuts:
            writer.write(answer)
        back.close()
        writer.close()


def _length(head: bytes) -> int:
    match = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
    return int(match[1]) if match else 0


@pytest.mark.slurm
async def test_lost_answer_leaves_a_submission_in_doubt(
    slurm_cluster_rest: SlurmCluster, token_file: Path, write_script: WriteScript
) -> None:
    """The job is there, and is found by its key."""
    since = datetime.now(UTC) - timedelta(minutes=1)
    proxy = Proxy(slurm_cluster_rest.restd)
    proxy.cuts = [b"/job/submit"]
    async with proxy as url, opened(url, token_file) as scheduler:
        with pytest.raises(SubmitAmbiguousError, match="a job may exist"):
            await scheduler.submit(write_script("true"), name="n", comment="lost-answer")
        found = (await scheduler.find("lost-answer", since=since)).records
        assert len(found) == 1
        await until_state(scheduler, found[0].job_id, JobState.COMPLETED)


@pytest.mark.slurm
async def test_lost_answer_to_a_question_is_no_answer(
    slurm_cluster_rest: SlurmCluster, token_file: Path
) -> None:
    """Not an empty queue, and not an unknown job."""
    proxy = Proxy(slurm_cluster_rest.restd)
    proxy.cuts = [b"/jobs", b"/job/1"]
    async with proxy as url, opened(url, token_file) as scheduler:
        with pytest.raises(SchedulerUnavailableError, match="answer is lost"):
            await scheduler.queue()
        with pytest.raises(SchedulerUnavailableError, match="answer is lost"):
            await scheduler.show("1")


@pytest.mark.slurm
async def test_question_whose_answer_was_cut_is_asked_again(
    slurm_cluster_rest: SlurmCluster, token_file: Path
) -> None:
    """It changes nothing, and a look of the agent is not lost for it."""
    proxy = Proxy(slurm_cluster_rest.restd)
    proxy.cuts, proxy.once = [b"/openapi", b"/jobs"], True
    async with proxy as url, opened(url, token_file) as scheduler:
        await scheduler.queue()
    assert proxy.cuts == []


async def test_nobody_listens(tmp_path: Path, write_script: WriteScript) -> None:
    """Nothing was sent, so nothing is in doubt."""
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text("no.such.token")
    async with opened("http://127.0.0.1:1", file) as scheduler:
        with pytest.raises(SchedulerUnavailableError, match="Unable to connect to slurmrestd"):
            await scheduler.submit(write_script("true"), name="n", comment="c")
        assert not await scheduler.healthy()


@pytest.fixture
def away(slurm_cluster_rest: SlurmCluster) -> Iterator[None]:
    """The controller stands still: it takes connections, and answers nothing."""
    assert slurm_cluster_rest.directory is not None
    record = slurm_cluster_rest.directory / "run" / "slurmctld.json"
    pid = json.loads(record.read_text())["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.slurm
async def test_absent_controller_is_no_unknown_job(
    slurm_cluster_rest: SlurmCluster, token_file: Path, away: None
) -> None:
    """slurmrestd is there, slurmctld is not."""
    del away
    url = slurm_cluster_rest.restd
    async with opened(url, token_file, query_timeout_seconds=20.0) as scheduler:
        with pytest.raises(SchedulerUnavailableError):
            await scheduler.show("1")
