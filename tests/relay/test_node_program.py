"""The node program, started as Slurm starts it, against a real relay."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import psutil
import pytest

from hpc_agent.relay.identity import ReportAnswer

from .fake_control_plane import FakeControlPlane, Reply
from .harness import HAS_RUN, INTERPRETERS, WAITING, Cluster, event, exists, python, until
from .test_tunnels import dialled

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
IGNORE_TERM = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))
grandchild = subprocess.Popen(['sleep', '600'])
print('grandchild', grandchild.pid, flush=True)
while True:
    time.sleep(600)
"""


@pytest.mark.parametrize("interpreter", INTERPRETERS)
async def test_a_run_is_executed_and_recorded(cluster: Cluster, interpreter: str) -> None:
    """Output, exit code, reports and exit record tell what the child did, on each Python."""
    job = cluster.job(
        argv=[
            *python("import sys; print(*sys.argv[1:]); sys.exit('went wrong')"),
            {"path": "tmp"},
        ],
    )
    async with cluster.relay():
        node = await cluster.start(job, python=interpreter)
        assert await node.wait() == 1
    assert cluster.jobs.events(job.key) == ["started", "exited"]
    record = node.exit_record()
    assert record["outcome"] == "exited"
    assert record["exit_code"] == 1
    assert record["signal"] is None
    assert record["slurm_job_id"] == "17"
    assert record["stderr_tail"] == "went wrong\n"
    assert record["max_rss_kb"] > 1000
    assert record["cpu_seconds"] > 0
    assert record["ended_at"] >= record["started_at"]
    assert cluster.jobs.reports[-1][1].exit == record
    assert node.child_output().startswith("/")
    assert not exists(node.child_output().strip())


async def test_text_of_others_is_never_taken_for_a_path(cluster: Cluster) -> None:
    """What users and the control plane write is passed on as it is, braces and all."""
    hostile = "{tmp} {socket} {0} %(tmp)s ${HPC_AGENT_TMP} $(id)"
    job = cluster.job(
        argv=[*python("import os, sys; print(sys.argv[1]); print(os.environ['X'])"), hostile],
        environment={"X": hostile},
    )
    async with cluster.relay():
        node = await cluster.start(job)
        assert await node.wait() == 0
    assert node.child_output().splitlines() == [hostile, hostile]


async def test_specification_of_an_unknown_version_is_not_followed(cluster: Cluster) -> None:
    """Of another version the same words may mean something else."""
    async with cluster.relay():
        node = await cluster.start(
            cluster.job(argv=["touch", str(cluster.root / "ran")], version=1)
        )
        assert await node.wait() == 2
    assert "version 1, expected 2" in node.log()
    assert not exists(str(cluster.root / "ran"))


async def test_a_run_that_must_not_start_is_not_started(cluster: Cluster) -> None:
    """The agent's answer to ``started`` is obeyed; Slurm sees success."""
    job = cluster.job(argv=["touch", str(cluster.root / "ran")])
    cluster.jobs.answer = ReportAnswer(proceed=False, reason="the run was canceled")
    async with cluster.relay():
        node = await cluster.start(job)
        assert await node.wait() == 0
    assert node.exit_record()["outcome"] == "not_started"
    assert node.exit_record()["reason"] == "the run was canceled"
    assert not (cluster.root / "ran").exists()


async def test_a_crash_is_recorded_with_its_signal(cluster: Cluster) -> None:
    """A child killed by a signal gives 128 + signal."""
    job = cluster.job(argv=python("import os; os.kill(os.getpid(), 11)"))
    async with cluster.relay():
        node = await cluster.start(job)
        assert await node.wait() == 128 + signal.SIGSEGV
    assert node.exit_record()["signal"] == signal.SIGSEGV
    assert node.exit_record()["exit_code"] is None
    assert node.exit_record()["outcome"] == "exited"


async def test_a_program_that_cannot_be_started_is_reported(cluster: Cluster) -> None:
    """A wrong interpreter path is told in the exit record."""
    job = cluster.job(argv=["/no/such/python"])
    async with cluster.relay():
        node = await cluster.start(job)
        assert await node.wait() == 127
    assert "cannot start /no/such/python: it is not there on " in node.exit_record()["reason"]


async def test_working_directory_that_is_not_there_is_named(cluster: Cluster) -> None:
    """What the operating system says of it could be meant for the program."""
    job = cluster.job(argv=["/bin/true"], working_directory="/no/such/directory")
    async with cluster.relay():
        node = await cluster.start(job)
        assert await node.wait() == 127
    reason = node.exit_record()["reason"]
    assert "cannot start /bin/true: its working directory /no/such/directory is not there" in reason


async def test_a_fault_of_the_node_program_ends_the_job_and_is_told(cluster: Cluster) -> None:
    """Nothing runs on that nobody looks after, and nobody waits for it."""
    job = cluster.job(argv=python(SLEEP), memory_limit_mb="many")
    async with cluster.relay():
        node = await cluster.start(job)
        assert await node.wait() == 70
    assert cluster.jobs.events(job.key) == ["started", "exited"]
    assert "the node program failed: TypeError" in node.exit_record()["reason"]
    assert node.exit_record()["exit_code"] == 70


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
async def test_termination_lets_the_child_end_by_itself(
    cluster: Cluster, number: signal.Signals
) -> None:
    """SIGTERM and the walltime warning reach the child as SIGTERM."""
    job = cluster.job(argv=python(SLEEP))
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: "up" in node.child_output())
        node.process.send_signal(number)
        assert await node.wait() == 128 + signal.SIGTERM
    assert node.exit_record()["outcome"] == "terminated"
    assert node.exit_record()["signal"] == signal.SIGTERM


async def test_a_stubborn_child_is_killed_with_its_group_after_the_grace(cluster: Cluster) -> None:
    """SIGKILL after grace_seconds leaves no descendant behind."""
    job = cluster.job(argv=python(IGNORE_TERM), grace_seconds=0.5)
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: "grandchild" in node.child_output())
        node.process.send_signal(signal.SIGTERM)
        assert await node.wait() == 128 + signal.SIGKILL
    assert "asked" in node.child_output()
    assert node.exit_record()["outcome"] == "terminated"
    grandchild = int(node.child_output().split()[1])
    await until(lambda: not _alive(grandchild))


SAVING = """
import signal, sys, time
def save(*_):
    print('saving', flush=True)
    time.sleep(float(sys.argv[1]))
    sys.exit(85)
signal.signal(signal.SIGTERM, save)
print('up', flush=True)
time.sleep(600)
"""


async def test_warned_child_has_the_time_that_is_left(cluster: Cluster) -> None:
    """Writing a checkpoint takes longer than the grace, which is for those that are ended."""
    argv = [*python(SAVING), "3"]
    job = cluster.job(argv=argv, grace_seconds=1, warning_seconds=25)
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: "up" in node.child_output())
        node.process.send_signal(signal.SIGUSR1)
        assert await node.wait() == 85
    assert node.exit_record()["ended_on"] == "SIGUSR1"


async def test_warned_child_that_is_ended_has_the_grace_alone(cluster: Cluster) -> None:
    """Whoever terminates the run does not wait for the end of its time."""
    argv = [*python(SAVING), "600"]
    job = cluster.job(argv=argv, grace_seconds=1, warning_seconds=600)
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: "up" in node.child_output())
        node.process.send_signal(signal.SIGUSR1)
        await until(lambda: "saving" in node.child_output())
        node.process.send_signal(signal.SIGINT)
        assert await node.wait() == 128 + signal.SIGKILL


async def test_the_child_dies_with_a_killed_node_program(cluster: Cluster) -> None:
    """SIGKILL to the node program alone does not leave the child running."""
    job = cluster.job(argv=python(SLEEP))
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: "up" in node.child_output())
        (child,) = psutil.Process(node.process.pid).children()
        node.process.kill()
        await node.wait()
        await until(lambda: not _alive(child.pid))


async def test_another_slurm_job_finds_the_claim_and_exits(cluster: Cluster) -> None:
    """A duplicate exits 0, runs nothing and leaves the claimant's records alone."""
    job = cluster.job(argv=python(SLEEP))
    async with cluster.relay():
        first = await cluster.start(job)
        await until(lambda: "up" in first.child_output())
        second = await cluster.start(job, environment={"SLURM_JOB_ID": "18"})
        assert await second.wait() == 0
        assert not (first.job_dir / "exit.json").exists()
        assert (
            "already claimed by Slurm job 17" in (first.job_dir / "duplicate-18.json").read_text()
        )
        assert cluster.jobs.events(job.key) == ["started", "duplicate"]
        told = cluster.jobs.reports[-1][1]
        assert (told.slurm_job_id, told.restart_count) == ("18", 0)
        assert told.claimed_by is not None
        assert (told.claimed_by.slurm_job_id, told.claimed_by.restart_count) == ("17", 0)
        assert told.claimed_by.hostname == told.hostname


async def test_a_duplicate_does_not_wait_for_a_relay_that_is_away(cluster: Cluster) -> None:
    """It keeps a node for seconds, not for as long as a run waits for its agent."""
    job = cluster.job(relay_timeout_seconds=600)
    claim = {"slurm_job_id": "17", "restart_count": 0, "hostname": "c1"}
    (cluster.directory(job.key) / "claim").write_text(json.dumps(claim))
    node = await cluster.start(job, environment={"SLURM_JOB_ID": "18"})
    assert await node.wait(20) == 0
    assert "could not report the duplicate" in node.log()
    record = json.loads((node.job_dir / "duplicate-18.json").read_text())
    assert record["claimed_by"] == claim


async def test_a_requeued_run_goes_on_when_the_agent_says_so(cluster: Cluster) -> None:
    """The same Slurm job restarted runs what goes on with a started run, and never the run anew."""
    job = cluster.job(argv=["sh", "-c", "echo ran"], resume_argv=["sh", "-c", "echo went on"])
    async with cluster.relay():
        assert await (await cluster.start(job)).wait() == 0
        cluster.jobs.answer = ReportAnswer(resume=True)
        again = await cluster.start(job, environment={"SLURM_RESTART_COUNT": "1"})
        assert await again.wait() == 0
    assert again.child_output() == "ran\nwent on\n"
    assert again.exit_record()["restart_count"] == 1
    assert [report.restart_count for _, report in cluster.jobs.reports] == [0, 0, 1, 1]


async def test_a_requeued_run_that_may_not_go_on_is_not_executed(cluster: Cluster) -> None:
    """The agent's policy decides."""
    job = cluster.job(argv=["sh", "-c", "echo ran"])
    async with cluster.relay():
        assert await (await cluster.start(job)).wait() == 0
        cluster.jobs.answer = ReportAnswer(proceed=False, reason="no policy lets it go on")
        again = await cluster.start(job, environment={"SLURM_RESTART_COUNT": "1"})
        assert await again.wait() == 0
    assert again.child_output() == "ran\n"
    assert again.exit_record()["reason"] == "no policy lets it go on"


async def test_a_run_that_cannot_go_on_is_not_executed_from_the_start(cluster: Cluster) -> None:
    """A job directory without a command to go on with is an error, not a second execution."""
    job = cluster.job(argv=["sh", "-c", "echo ran"])
    cluster.jobs.answer = ReportAnswer(resume=True)
    async with cluster.relay():
        node = await cluster.start(job)
        assert await node.wait() == 127
    assert node.child_output() == ""
    assert "resume_argv" in node.exit_record()["reason"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
async def test_a_run_that_another_attempt_continues_is_left_open(
    cluster: Cluster, number: signal.Signals
) -> None:
    """A run worker that is asked to end closes its run: this one is killed before it can."""
    closing = "import signal, sys; signal.signal(15, lambda *_: print('closed', flush=True)); "
    job = cluster.job(argv=python(closing + SLEEP), leave_open_on=[number.name])
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: "up" in node.child_output())
        node.process.send_signal(number)
        assert await node.wait() == 128 + signal.SIGKILL
    assert "closed" not in node.child_output()
    assert node.exit_record()["outcome"] == "terminated"
    assert node.exit_record()["ended_on"] == number.name


FAILING_ON_TERM = """
import http.client, os, pathlib, signal, sys
body, sent = sys.argv[1:]
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print('up', flush=True)
signal.sigwait([signal.SIGTERM])
connection = http.client.HTTPConnection(os.environ['HPC_AGENT_API_URL'].removeprefix('http://'))
headers = {'Dagster-Cloud-Api-Token': os.environ['HPC_AGENT_JOB_TOKEN']}
connection.request('POST', '/graphql', body, headers)
pathlib.Path(sent).touch()
connection.getresponse().read()
"""


@pytest.mark.parametrize("is_left_open", [True, False], ids=["left open", "closed"])
async def test_failure_by_what_ends_the_job_is_not_told_if_another_attempt_goes_on(
    cluster: Cluster, *, is_left_open: bool
) -> None:
    """Slurm signals every process of a job, and on a busy node the child is the first to act.

    Here it is because the node program is stopped meanwhile.
    """
    sent = cluster.root / "sent"
    argv = [*python(FAILING_ON_TERM), json.dumps(event(1)), str(sent)]
    job = cluster.job(argv=argv, leave_open_on=["SIGTERM"] if is_left_open else [])
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: "up" in node.child_output())
        (child,) = psutil.Process(node.process.pid).children()
        node.process.send_signal(signal.SIGSTOP)
        child.send_signal(signal.SIGTERM)
        await until(sent.exists)
        node.process.send_signal(signal.SIGTERM)
        node.process.send_signal(signal.SIGCONT)
        await node.wait()
    assert len(cluster.control_plane.stored) == (0 if is_left_open else 1)
    assert node.exit_record()["ended_on"] == "SIGTERM"


async def test_run_that_is_being_closed_is_heard_whatever_else_is_sent(cluster: Cluster) -> None:
    """A user's termination is followed by Slurm's own signals: its last events are still taken."""
    sent = cluster.root / "sent"
    argv = [*python(FAILING_ON_TERM), json.dumps(event(1)), str(sent)]
    job = cluster.job(argv=argv, leave_open_on=["SIGTERM"])
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: "up" in node.child_output())
        node.process.send_signal(signal.SIGSTOP)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
            node.process.send_signal(number)
        await node.wait()
    assert len(cluster.control_plane.stored) == 1
    assert node.exit_record()["ended_on"] == "SIGINT"


async def test_a_terminated_run_is_closed_even_if_another_attempt_could_continue_it(
    cluster: Cluster,
) -> None:
    """The agent asks by SIGINT, which Slurm never sends by itself."""
    job = cluster.job(argv=python(SLEEP), leave_open_on=["SIGTERM", "SIGUSR1"])
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: "up" in node.child_output())
        node.process.send_signal(signal.SIGINT)
        assert await node.wait() == 128 + signal.SIGTERM


async def test_an_earlier_start_can_write_nothing_more(cluster: Cluster) -> None:
    """What Slurm took for dead, and requeued elsewhere, may live on behind a broken network."""
    job = cluster.job(argv=python(WAITING))
    async with cluster.relay(), cluster.loopback(job) as earlier:
        query = {"query": HAS_RUN, "variables": {"runId": "run-id-1"}}
        assert (await earlier.post("/graphql", json=query)).status_code == 200
        cluster.jobs.identities[cluster.token(job.key)] = replace(job, restart_count=1)
        refused = await earlier.post("/graphql", json=query)
    assert refused.status_code == 401
    assert "a later start of this job" in refused.text


async def test_a_requeued_code_server_takes_its_claim_over(cluster: Cluster) -> None:
    """A code server may be started again under the same Slurm job."""
    job = cluster.job(kind="code_server", argv=["sh", "-c", "echo ran"])
    async with cluster.relay():
        assert await (await cluster.start(job)).wait() == 0
        again = await cluster.start(job, environment={"SLURM_RESTART_COUNT": "1"})
        assert await again.wait() == 0
    assert again.child_output() == "ran\nran\n"
    assert again.exit_record()["outcome"] == "exited"


async def test_without_a_relay_the_run_is_not_started(cluster: Cluster) -> None:
    """After relay_timeout_seconds the exit record says what to check."""
    job = cluster.job(argv=["true"], relay_timeout_seconds=1)
    node = await cluster.start(job)
    assert await node.wait() == 75
    assert node.exit_record()["outcome"] == "not_started"
    assert "Check that hpc-agent is running" in node.exit_record()["reason"]


async def test_a_signal_ends_the_wait_for_the_relay(cluster: Cluster) -> None:
    """A canceled job does not wait out relay_timeout_seconds."""
    job = cluster.job(argv=["true"], relay_timeout_seconds=600)
    node = await cluster.start(job)
    await until(lambda: "was not accepted" in node.log())
    node.process.send_signal(signal.SIGTERM)
    assert await node.wait() == 128 + signal.SIGTERM
    assert node.exit_record()["outcome"] == "not_started"


async def test_nothing_listens_beyond_the_loopback_and_no_token_is_in_argv(
    cluster: Cluster,
) -> None:
    """Of the whole process tree, only 127.0.0.1 is listened on; the token is not shown by ps."""
    job = cluster.job(argv=python(SLEEP))
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: "up" in node.child_output())
        tree = psutil.Process(node.process.pid)
        processes = [tree, *tree.children(recursive=True)]
        listening = [
            (process.pid, c.laddr.ip)
            for process in processes
            for c in process.net_connections(kind="inet")
            if c.status == psutil.CONN_LISTEN
        ]
        assert listening == [(node.process.pid, "127.0.0.1")]
        token = cluster.token(job.key)
        for process in psutil.process_iter():
            try:
                assert token not in " ".join(process.cmdline())
            except psutil.Error:
                continue
        assert token not in node.log()
        assert (node.job_dir / "stdout").stat().st_mode & 0o077 == 0


def test_an_unusable_job_directory_is_one_clear_line(cluster: Cluster) -> None:
    """A missing spec.json is an error of one line, not a traceback."""
    result = subprocess.run(
        [sys.executable, str(cluster.program), str(cluster.root / "nowhere")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "spec.json: No such file or directory" in result.stderr


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_this_test_can_see_processes() -> None:
    """``_alive`` can tell."""
    assert _alive(os.getpid())


async def test_what_a_job_leaves_behind_can_write_nothing_more(cluster: Cluster) -> None:
    """Once its end is known, its token is for the report of it alone."""
    job = cluster.job(argv=python(WAITING))
    server = cluster.job(2, kind="code_server")
    query = {"query": HAS_RUN, "variables": {"runId": "run-id-1"}}
    async with cluster.relay() as relay, cluster.loopback(job) as left:
        assert (await left.post("/graphql", json=query)).status_code == 200
        for each in (job, server):
            cluster.jobs.identities[cluster.token(each.key)] = replace(each, is_over=True)
        for method, path in (
            ("POST", "/graphql"),
            ("PUT", "/store_events"),
            ("GET", "/gen_logs_url"),
            ("POST", "/gen_artifact_get"),
        ):
            refused = await left.request(method, path, json=query)
            assert (refused.status_code, "this job has ended" in refused.text) == (401, True)
        told = await left.post("/_hpc/report", json={"event": "exited"})
        assert told.json()["proceed"] is True
        _, writer, answer = await dialled(cluster, cluster.token(server.key), "generation")
        assert answer == b"-this job has ended\n"
        assert not relay.connected(server.key)
        writer.transport.abort()


async def test_last_request_of_a_child_comes_before_the_report_of_its_end(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """A child that is killed while it writes has written, or has not: never after its end."""
    code = f"""
import http.client, os, signal, time
from urllib.parse import urlsplit
there = http.client.HTTPConnection(urlsplit(os.environ["HPC_AGENT_API_URL"]).netloc)
there.request("POST", "/graphql", {json.dumps(event(1))!r}, {{
    "Dagster-Cloud-Api-Token": os.environ["HPC_AGENT_JOB_TOKEN"], "Idempotency-Key": "k"}})
time.sleep(0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""
    hold = threading.Event()
    control_plane.script = lambda _: Reply(hold=hold)
    job = cluster.job(argv=python(code))
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: bool(control_plane.requests))
        await asyncio.sleep(1.5)
        assert cluster.jobs.events(job.key) == ["started"]
        hold.set()
        assert await node.wait() == 128 + signal.SIGKILL
    assert cluster.jobs.events(job.key) == ["started", "exited"]
