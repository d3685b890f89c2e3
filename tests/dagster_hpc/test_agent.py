"""Jobs through the agent's API, and runs whose jobs outlive their run worker."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import psutil
import pytest
from dagster_hpc.jobs import (
    JobError,
    JobName,
    JobRequest,
    JobStatus,
    NotAnsweredError,
    Phase,
)
from dagster_hpc.launchers.agent import AgentLauncher
from dagster_hpc.launchers.local import LocalLauncher
from dagster_hpc.steps.places import Place
from dagster_hpc.steps.step_jobs import Cargo, StepJobs

from tests.dagster_hpc.agent_server import TOKEN, FakeAgent, served
from tests.dagster_hpc.runs import RUN, Bench, bench, poll
from tests.hostile_server import always, hostile_server


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeAgent:
    """An agent whose jobs have their directories in the test's."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    return FakeAgent(RUN)


@pytest.fixture
def url(agent: FakeAgent) -> Iterator[str]:
    with served(agent) as address:
        yield address


def command(name: str, *argv: str, partition: str = "open") -> JobRequest:
    return JobRequest(JobName(name), [(name, {"dagster-hpc/partition": partition})], command=argv)


def test_jobs_of_a_run_go_through_the_agent(agent: FakeAgent, url: str) -> None:
    """Submitted once, followed to the end, found by name; no proxy is in between."""
    launcher = AgentLauncher(url, TOKEN)
    asked = [command("good", "sh", "-c", "exit 0"), command("bad", "x", partition="closed")]
    good, bad = launcher.submit(asked)
    assert good.job == JobName("good")
    assert (bad.state, bad.message) == ("REFUSED", "partition closed may not be used here")
    ended = poll(lambda: [each for each in launcher.changes(5) if each.has_succeeded])
    assert ended[0].job == JobName("good")
    assert launcher.status(JobName("good")) == ended[0]
    assert launcher.status(JobName("other")) is None
    assert launcher.directory(JobName("good")) == agent.local.directory(JobName("good"))


def test_an_agent_that_is_away_is_asked_again(agent: FakeAgent, url: str) -> None:
    """Without news meanwhile; one that stays away is named."""
    launcher = AgentLauncher(url, TOKEN)
    agent.away = 3
    assert launcher.changes(0) == ()
    launcher.submit([command("a", "true")])
    assert agent.submitted["a"] == 1
    gone = AgentLauncher("http://127.0.0.1:9", TOKEN, patience=1)
    assert gone.changes(0) == ()
    with pytest.raises(JobError, match="has not answered for 1 s"):
        gone.submit([command("a", "true")])


# An end that http.client takes for the end of the answer, and one that it does not.
CUT = ("Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n64\r\n{")


@pytest.mark.parametrize("cut", CUT, ids=["length", "chunks"])
def test_an_answer_that_is_cut_is_asked_for_again(cut: str) -> None:
    """As that of an agent that stops while it answers."""
    content = f"HTTP/1.1 503 Away\r\nRetry-After: 0\r\n{cut}".encode()
    with hostile_server(always(content)) as server:
        launcher = AgentLauncher(server.url, TOKEN, patience=1)
        assert launcher.changes(0) == ()
        assert not launcher.has_all_events()
        with pytest.raises(NotAnsweredError, match="has not answered for 1 s: 503"):
            launcher.cancel([JobName("a")])
        assert len(server.heads) > 3


@pytest.mark.parametrize("cut", CUT, ids=["length", "chunks"])
def test_a_refusal_that_is_cut_is_one(cut: str) -> None:
    """Its code says so."""
    with (
        hostile_server(always(f"HTTP/1.1 403 No\r\n{cut}".encode())) as server,
        pytest.raises(JobError, match="the agent answers 403"),
    ):
        AgentLauncher(server.url, TOKEN).changes(1)


def test_a_refusal_is_in_the_agents_words(url: str) -> None:
    """And is not tried again."""
    with pytest.raises(JobError, match="this token is of no run"):
        AgentLauncher(url, "stolen").changes(1)


def test_an_agent_that_has_forgotten_is_asked_anew(agent: FakeAgent, url: str) -> None:
    """For what goes on: else a run would wait for ever for a job that nobody knows."""
    launcher = AgentLauncher(url, TOKEN)
    launcher.submit([command("over", "true"), command("long", "sleep", "60")])
    poll(lambda: [each for each in launcher.changes(5) if each.has_succeeded])
    agent.forget()
    assert JobName("long") in {each.job for each in poll(lambda: launcher.changes(5))}
    assert agent.submitted == {"over": 1, "long": 2}


def test_each_field_of_a_status_is_read(agent: FakeAgent, url: str) -> None:
    """What the agent says of a job is what user code is told."""
    launcher = AgentLauncher(url, TOKEN)
    said = JobStatus(
        job=JobName("told", 2),
        phase=Phase.ENDED,
        job_id="17_3",
        state="FAILED",
        reason="why",
        nodes="c[1-2]",
        exit_code=3,
        signal=9,
        message="words",
        directory="/shared/jobs/stp-1",
        submitted_at=1.5,
        started_at=2.5,
        ended_at=3.5,
        restarts=2,
    )
    assert not {each.name for each in fields(said) if getattr(said, each.name) == each.default}
    agent.note(said)
    assert launcher.status(said.job) == said


def test_events_of_other_jobs_end_the_wait(agent: FakeAgent, url: str) -> None:
    """So the end of a step is seen at once, and nobody polls for it."""
    launcher = AgentLauncher(url, TOKEN)
    launcher.changes(0)
    asked = agent.calls["GET /_hpc/steps"]
    assert launcher.changes(0.4) == []
    assert agent.calls["GET /_hpc/steps"] == asked + 1
    threading.Timer(0.3, agent.write_event).start()
    beginning = time.monotonic()
    assert launcher.changes(30) == []
    assert time.monotonic() - beginning < 10


def test_many_jobs_are_few_calls(agent: FakeAgent, url: str) -> None:
    """A thousand at most in each, and not more than the agent reads at once."""
    launcher = AgentLauncher(url, TOKEN)
    launcher.submit([command(f"n{number}", "x", partition="closed") for number in range(1500)])
    assert agent.calls["POST /_hpc/steps"] == 2
    long = replace(command("long", "x", partition="closed"), arguments="x" * 100_000)
    launcher.submit([replace(long, job=JobName(f"l{number}")) for number in range(100)])
    assert agent.calls["POST /_hpc/steps"] == 4


def test_a_job_that_is_not_understood_is_refused_alone(agent: FakeAgent, url: str) -> None:
    """The others of the call are taken, each once."""
    launcher = AgentLauncher(url, TOKEN)
    large = replace(command("large", "true"), steps=[(f"m{n}", {}) for n in range(1001)])
    asked = [command("a", "true"), large, command("b", "true"), command("c", "true")]
    statuses = launcher.submit(asked)
    assert [each.job.name for each in statuses] == ["a", "large", "b", "c"]
    refused = [each for each in statuses if each.state == "REFUSED"]
    assert [each.job.name for each in refused] == ["large"]
    assert "at most 1000 items" in refused[0].message
    assert agent.submitted == {"a": 1, "b": 1, "c": 1}


def test_jobs_wait_for_an_agent_that_does_not_answer(agent: FakeAgent, url: str) -> None:
    """They are asked for again, and no step is failed by it."""
    told: list[str] = []
    local = LocalLauncher(RUN)
    jobs = StepJobs(
        AgentLauncher(url, TOKEN, patience=0),
        local,
        lambda carrier, _: told.append(carrier.status.phase.value),
    )
    agent.away = 2
    jobs.start([Cargo(command("a", "true"), Place.JOB, ["a"])])
    jobs.ask()
    assert not told
    assert not jobs.has_unexplained
    jobs.ask()
    jobs.ask()
    assert agent.submitted == {"a": 1}
    assert jobs.carries("a")
    local.close()


def test_an_end_beside_is_not_judged_while_the_agent_spools(agent: FakeAgent, url: str) -> None:
    """The success of the step may be among the events that wait for the control plane."""
    local = LocalLauncher(RUN)
    jobs = StepJobs(AgentLauncher(url, TOKEN), local, lambda *_: None)
    agent.spools = True
    jobs.start([Cargo(command("a", "false"), Place.PROCESS, ["a"])])
    while not jobs.has_unexplained:
        jobs.note(local.changes(1))
    assert [lost for _ in range(3) for lost in jobs.looked()] == []
    agent.spools = False
    assert list(jobs.looked()) == []  # what was kept is read after this
    assert [lost.step for lost in jobs.looked()] == ["a"]
    local.close()


@pytest.fixture
def there(tmp_path: Path, url: str) -> Iterator[Bench]:
    """Runs whose jobs are the agent's."""
    variables = {"HPC_AGENT_API_URL": url, "HPC_AGENT_JOB_TOKEN": TOKEN}
    with bench(tmp_path, **variables) as made, pytest.MonkeyPatch.context() as patch:
        # The jobs' environment: the run's instance, as the agent gives it to them.
        for name, value in made.environment.items():
            patch.setenv(name, value)
        yield made


def test_jobs_outlive_their_run_worker(agent: FakeAgent, there: Bench) -> None:
    """The next one finds them by name, and starts its own processes alone again."""
    worker = there.start("long")
    poll(lambda: there.words("long_job") and there.words("long_process"))
    worker.kill()
    worker.communicate()
    job = psutil.Process(int(there.words("long_job")[0]))
    assert job.is_running()
    again = there.start("long", resume=True)
    poll(lambda: len(there.words("long_process")) == 2)
    (there.directory / "go").touch()
    poll(lambda: "long_process" in there.of().steps("STEP_SUCCESS"))
    agent.local.cancel([JobName("long_job")])
    output, _ = again.communicate(timeout=60)
    run = there.of()
    assert run.status == "FAILURE", output
    assert run.steps("STEP_FAILURE") == ["long_job"]
    assert len(there.words("long_job")) == 1
    assert agent.submitted == {"long_job": 1}


@pytest.mark.parametrize(
    ("most", "asked"), [(9, {"first": 1}), (1, {"first": 1, "third": 1})], ids=["whole", "in parts"]
)
def test_a_group_outlives_its_run_worker(
    agent: FakeAgent, there: Bench, most: int, asked: dict[str, int]
) -> None:
    """The next one knows by the run's log which job executes a step: nothing runs twice."""
    worker = there.start("group_waits", max_concurrent=most)
    poll(lambda: there.words("second_waits"))
    worker.kill()
    worker.communicate()
    again = there.start("group_waits", resume=True, max_concurrent=most)
    poll(lambda: "Resuming execution" in there.of().messages())
    (there.directory / "go").touch()
    output, _ = again.communicate(timeout=60)
    assert there.of().status == "SUCCESS", output
    ran = {name: len(there.words(name)) for name in ("first", "second_waits", "third")}
    assert ran == {"first": 1, "second_waits": 1, "third": 1}
    assert agent.submitted == asked
    assert Counter(there.of().steps("STEP_SUCCESS")) == Counter([*ran, "here", "other_first"])


def test_a_refused_step_fails_with_the_agents_words(agent: FakeAgent, there: Bench) -> None:
    """Without another attempt, and the others go on; an agent that is away delays them only."""
    agent.away = 3
    run = there.run("refused")
    assert run.failure("on_closed").strip() == "partition closed may not be used here"
    assert run.steps("STEP_UP_FOR_RETRY") == []
    assert "alone" in run.steps("STEP_SUCCESS")
    assert agent.submitted == {"on_closed": 1, "alone": 1}
    assert agent.local.status(JobName("alone")) is not None


def test_command_of_a_killed_step_has_ended_before_its_retry_begins_another(
    agent: FakeAgent, there: Bench
) -> None:
    """Both would write into the same directory."""
    run = there.run("solved_twice")
    assert run.status == "SUCCESS", run.messages("solving")
    assert run.steps("STEP_UP_FOR_RETRY") == ["solving"]
    first = agent.local.status(JobName("solving.command-1"))
    assert first is not None
    assert first.state == "CANCELLED"
    assert (there.directory / "solver.alone").exists()


def test_command_ends_when_dagster_refuses_what_was_yielded(agent: FakeAgent, there: Bench) -> None:
    """Its op stands still for ever then, and nobody looks at the command any more."""
    run = there.run("rejected")
    assert run.steps("STEP_FAILURE") == ["rejecting"]
    (command,) = [each for each in agent.submitted if ".command-" in each]
    poll(lambda: (status := agent.local.status(JobName(command))) and status.phase is Phase.ENDED)
