"""What runs may ask for by the step API, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from hpc_agent.agent.cancel import CancelLoop
from hpc_agent.errors import SchedulerError
from hpc_agent.relay.identity import JobReport
from hpc_agent.slurm.state import JobState
from hpc_agent.steps.planning import ARGUMENTS
from hpc_agent.store import steps, workers
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import WorkerKind
from tests.steps.conftest import RUN_ID, RUNNER, TOKENS, Asking


def a_step(name: str = "fit", **more: Any) -> dict[str, Any]:
    """Return what slurm_executor asks for a step."""
    tags = more.pop("tags", {"dagster-hpc/cpus-per-task": "4"})
    return {"name": name, "steps": [{"key": name, "tags": tags}], "arguments": "eJw="} | more


def a_command(*words: str, **more: Any) -> dict[str, Any]:
    return {"name": "solve", "steps": [{"key": "solve"}], "command": list(words)} | more


async def test_step_becomes_an_intent_with_its_own_options(asking: Asking) -> None:
    """Those of its tags; of the run's own only who pays, since its size is another's."""
    (status,) = await asking.submit(a_step())
    assert (status["phase"], status["state"], status["job_id"]) == ("waiting", "", None)
    worker = await asking.step("fit")
    assert (worker.kind, worker.run_id, worker.phase) == (WorkerKind.STEP, RUN_ID, Phase.INTENT)
    chosen = {row["option"]: row["value"] for row in json.loads(worker.settings)}
    assert chosen["cpus-per-task"] == "4"
    assert chosen["account"] == "physics"
    assert "mem" not in chosen
    spec = json.loads(
        (asking.bench.context.preparation.work.of(worker.key) / "spec.json").read_text()
    )
    assert spec["kind"] == "step"
    assert spec["argv"] == ["/usr/bin/python3", "-m", "dagster", "api", "execute_step"]
    assert spec["environment"][ARGUMENTS] == "eJw="
    assert spec["compute_logs"] is not None


async def test_same_name_is_one_job(asking: Asking) -> None:
    """A run worker that asks again finds what it has asked for; a retry of Dagster's is another."""
    await asking.submit(a_step())
    await asking.submitted("11")
    first, again, retry = await asking.submit(a_step(), a_step(), a_step(attempt=1))
    assert first == again
    assert (first["phase"], first["job_id"]) == ("queued", "11")
    assert (retry["phase"], retry["attempt"]) == ("waiting", 1)
    assert await asking.bench.context.store.run(lambda db: steps.count(db, RUN_ID)) == 2


async def test_alike_steps_are_one_array(asking: Asking) -> None:
    """Whatever each of them does."""
    await asking.submit(*(a_step(f"part[{number}]") for number in range(50)))
    await asking.submitted("20")
    assert asking.bench.scheduler.arrays == [50]
    assert (await asking.step("part[49]")).job_id == "20_49"


async def test_command_writes_its_checkpoint_before_another_attempt(asking: Asking) -> None:
    """It closes no run, as a step would that is to go on: it has all the time of its warning."""
    tags = {"dagster-hpc/on-timeout": "resubmit", "dagster-hpc/signal": "B:USR1@600"}
    await asking.submit(
        a_command("./train", steps=[{"key": "solve", "tags": tags}]), a_step(tags=tags)
    )
    work = asking.bench.context.preparation.work
    command, step = [
        json.loads((work.of((await asking.step(name)).key) / "spec.json").read_text())
        for name in ("solve", "fit")
    ]
    assert (command["leave_open_on"], command["warning_seconds"]) == ([], 600)
    assert (step["leave_open_on"], step["warning_seconds"]) == (["SIGUSR1"], None)


async def test_command_runs_where_it_is_asked_to(asking: Asking) -> None:
    """With its own variables, and nothing captured: it prints into its directory."""
    variables = {"DAGSTER_PIPES_CONTEXT": "x"}
    asked = a_command("mpirun", "./solve", environment=variables, working_directory="/data")
    await asking.submit(asked)
    worker = await asking.step("solve")
    spec = json.loads(
        (asking.bench.context.preparation.work.of(worker.key) / "spec.json").read_text()
    )
    assert spec["argv"] == ["mpirun", "./solve"]
    assert spec["working_directory"] == "/data"
    assert spec["environment"] == variables
    assert spec["compute_logs"] is None
    directory = (await asking.post("/directory", {"name": "solve"})).json()["directory"]
    assert directory.endswith(f"/jobs/{worker.key}")


async def test_policy_refuses_in_words(asking: Asking) -> None:
    """What cannot be had is no job, and the others go on."""
    bad, good = await asking.submit(
        a_step("bad", tags={"dagster-hpc/output": "/tmp/x"}), a_step("good")
    )
    assert (bad["phase"], bad["state"]) == ("ended", "REFUSED")
    assert "output cannot be set" in bad["message"]
    assert good["phase"] == "waiting"


async def test_slurm_refuses_in_words(asking: Asking) -> None:
    """As it says them."""
    await asking.submit(a_step())
    asking.bench.scheduler.submissions.append(SchedulerError("invalid account"))
    await asking.submitted()
    (status,) = (await asking.changes())["jobs"]
    assert (status["phase"], status["state"]) == ("ended", "REFUSED")
    assert "invalid account" in status["message"]


async def test_change_ends_the_wait(asking: Asking) -> None:
    """Only what has changed since is told."""
    await asking.submit(a_step("a"), a_step("b"))
    before = await asking.changes()
    assert len(before["jobs"]) == 2
    waiting = asyncio.create_task(
        asking.changes(after=before["cursor"], events=before["events"], wait=30)
    )
    await asyncio.sleep(0)
    await asking.change("b", phase=Phase.SUBMITTING)
    after = await waiting
    assert [job["name"] for job in after["jobs"]] == ["b"]
    assert after["cursor"] > before["cursor"]


async def test_events_of_other_jobs_end_the_wait(asking: Asking) -> None:
    """Those of its own do not."""
    await asking.submit(a_step())
    other = (await asking.step("fit")).key
    before = await asking.changes()
    asked = {"after": before["cursor"], "events": before["events"], "wait": 30}
    waiting = asyncio.create_task(asking.changes(**asked))
    await asyncio.sleep(0.1)
    asking.desk.run_events.wrote(RUN_ID, RUNNER)
    await asyncio.sleep(0.2)
    assert not waiting.done()
    asking.desk.run_events.wrote(RUN_ID, other)
    after = await waiting
    assert after["jobs"] == []
    assert after["events"] == before["events"] + 1


async def test_end_is_told_after_the_events_before_it(asking: Asking) -> None:
    """While they wait for the control plane, the run would think that its step had died."""
    await asking.submit(a_step())
    before = await asking.changes()
    asked = {"after": before["cursor"], "events": before["events"]}
    await asking.change("fit", phase=Phase.QUEUED)
    other = {"after": 1, "events": before["events"] + 1}
    asking.spooled.add(RUN_ID)
    assert await asking.changes(**asked) == before | {"jobs": []}
    assert (await asking.changes(**other))["events"] == other["events"]
    asking.spooled.clear()
    assert (await asking.changes(**other))["events"] == before["events"]
    assert [job["name"] for job in (await asking.changes(**asked))["jobs"]] == ["fit"]


async def test_step_may_ask_for_further_jobs_of_its_run(asking: Asking) -> None:
    """An op in a job of its own that runs a command."""
    await asking.submit(a_step())
    await asking.change("fit", phase=Phase.QUEUED)
    (status,) = await asking.submit(a_command("true"), key=(await asking.step("fit")).key)
    assert status["phase"] == "waiting"
    assert (await asking.step("solve")).run_id == RUN_ID


async def test_code_server_asks_for_nothing(asking: Asking) -> None:
    """It belongs to no run."""
    answer = await asking.post("", {"jobs": [a_step()]}, key="srv-1")
    assert answer.status_code == 403
    assert "only the jobs of a run" in answer.text


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"jobs": []}, "jobs"),
        ({"jobs": [a_step(name="")]}, "name"),
        ({"jobs": [a_step(name="a\nb")]}, "cannot be printed"),
        ({"jobs": [a_step() | {"command": ["true"]}]}, "not both"),
        ({"jobs": [{"name": "x", "steps": [{"key": "x"}]}]}, "not both"),
        ({"jobs": [a_step(arguments="$(id)")]}, "arguments"),
        ({"jobs": [a_command("a\0b")]}, "NUL"),
        ({"jobs": [a_command("x" * (1 << 18))]}, "longer than"),
        ({"jobs": [a_command("true", environment={"A=B": "1"})]}, "environment"),
        ({"jobs": [a_command("true", working_directory="here")]}, "working_directory"),
        ({"jobs": [a_step(uid=0)]}, "uid"),
        ({"jobs": [a_step(steps=[])]}, "steps"),
        ({"jobs": [a_step(attempt=-1)]}, "attempt"),
        ([], "object"),
    ],
)
async def test_nonsense_is_refused_in_words(asking: Asking, asked: Any, words: str) -> None:
    """And makes no job."""
    answer = await asking.post("", asked)
    assert answer.status_code == 400
    assert words in answer.text
    assert await asking.bench.context.store.run(lambda db: steps.count(db, RUN_ID)) == 0


@pytest.mark.parametrize("settings", [{"steps": {"max_per_run": 3}}])
async def test_run_has_a_most(asking: Asking) -> None:
    """So that a loop in user code fills neither the disk nor the queue."""
    statuses = await asking.submit(*(a_step(f"s{number}") for number in range(5)))
    assert [status["phase"] for status in statuses] == ["waiting"] * 3 + ["ended"] * 2
    assert "steps.max_per_run" in statuses[4]["message"]


async def test_run_that_is_ending_gets_no_more(asking: Asking) -> None:
    """Else a job would be left behind."""
    store = asking.bench.context.store
    await store.run(
        lambda db: workers.change(db, RUNNER, now=1.0, source="test", terminate_at=2000.0)
    )
    (status,) = await asking.submit(a_step())
    assert (status["phase"], status["message"]) == ("ended", "its run is ending")


async def test_canceled_job_is_signalled_and_then_ended(asking: Asking) -> None:
    """One that waits is withdrawn at once."""
    await asking.submit(a_step("runs"), a_step("waits"))
    await asking.submitted("30")
    await asking.change("runs", phase=Phase.RUNNING)
    await asking.post("/cancel", {"jobs": [{"name": "runs"}, {"name": "waits"}, {"name": "none"}]})
    await asking.bench.context.tasks.finish()
    assert ("30_0", "INT") in asking.bench.scheduler.signalled
    assert (await asking.step("runs")).terminate_at is not None
    assert (await asking.step("waits")).terminate_at is not None


async def test_run_that_is_over_leaves_no_step(asking: Asking) -> None:
    """Whatever has ended it."""
    await asking.submit(a_step("queued"), a_step("intent", tags={"dagster-hpc/mem": "1G"}))
    await asking.change("queued", phase=Phase.SUBMITTING)
    await asking.change("queued", phase=Phase.QUEUED)
    store = asking.bench.context.store
    await store.run(
        lambda db: workers.change(
            db, RUNNER, now=1.0, source="test", phase=Phase.ENDED, outcome=JobState.FAILED
        )
    )
    asking.run_is("FAILURE")
    await asking.conclude.step()
    assert (await asking.step("intent")).phase is Phase.WITHDRAWN
    assert (await asking.step("queued")).terminate_at is not None


async def ended(asking: Asking, state: JobState) -> None:
    """Let Slurm end the job of a step that runs."""
    await asking.submitted("40")
    await asking.change("fit", phase=Phase.RUNNING, started_at=995.0)
    await asking.change("fit", phase=Phase.ENDED, outcome=state, ended_at=999.0)


async def test_agent_begins_again_what_slurm_has_ended(asking: Asking) -> None:
    """To its run it goes on meanwhile: that is no attempt of user code."""
    await asking.submit(a_step(tags={"dagster-hpc/on-preempt": "resubmit"}))
    await ended(asking, JobState.PREEMPTED)
    (status,) = (await asking.changes())["jobs"]
    assert status["phase"] == "running"
    await asking.conclude.step()
    (status,) = (await asking.changes())["jobs"]
    assert (status["phase"], status["restarts"]) == ("waiting", 1)
    worker = await asking.step("fit")
    assert worker.attempt == 2
    assert await asking.bench.context.store.run(lambda db: steps.request(db, worker.key))


async def test_without_a_policy_its_end_is_told(asking: Asking) -> None:
    """With the cursor of before: it was running to its run until the agent had decided."""
    await asking.submit(a_step())
    await ended(asking, JobState.PREEMPTED)
    before = await asking.changes()
    await asking.conclude.step()
    after = await asking.changes(after=before["cursor"], events=before["events"])
    (status,) = after["jobs"]
    assert (status["phase"], status["state"]) == ("ended", "PREEMPTED")


async def test_later_attempt_does_not_repeat_what_is_done(asking: Asking) -> None:
    """Its step may have ended by its events just before Slurm ended its job."""
    await asking.submit(a_step(tags={"dagster-hpc/on-preempt": "resubmit"}))
    await ended(asking, JobState.PREEMPTED)
    await asking.conclude.step()
    key = (await asking.step("fit")).key
    stats = [{"stepKey": "fit", "attemptsList": ["{}"]}]
    asking.bench.control_plane.answer = {"data": {"eventLogs": {"getStepStatsForRun": stats}}}
    identity = await asking.reports.identify(TOKENS.token(key))
    assert identity is not None
    report = JobReport(event="started", hostname="c1", slurm_job_id="41")
    answer = await asking.reports.receive(identity, report)
    assert (answer.proceed, answer.reason) == (False, "an earlier job of it has done it")


async def test_run_reaches_no_job_of_another(asking: Asking) -> None:
    """Not by its name, nor by that of a job that it would like to have."""
    await asking.submit(a_step())
    other = await asking.bench.add("run-other", phase=Phase.RUNNING, job_id="9", run_id="other")
    await asking.post("/cancel", {"jobs": [{"name": "fit"}]}, key=other.key)
    assert (await asking.step("fit")).terminate_at is None
    assert (await asking.changes(key=other.key))["jobs"] == []
    mine = (await asking.post("/directory", {"name": "fit"})).json()
    theirs = (await asking.post("/directory", {"name": "fit"}, key=other.key)).json()
    assert mine != theirs


async def over(asking: Asking, name: str) -> None:
    """Let a step's job run and end well."""
    await asking.change(name, phase=Phase.RUNNING, started_at=995.0)
    await asking.change(
        name, phase=Phase.ENDED, outcome=JobState.COMPLETED, exit_code=0, ended_at=999.0
    )


async def test_no_change_is_missed_when_older_ones_are_removed(asking: Asking) -> None:
    """Numbers of changes are never used again."""
    await asking.submit(a_step("long"), a_step("short", tags={"dagster-hpc/mem": "3G"}))
    await asking.submitted("11", "12")
    await over(asking, "short")
    await asking.conclude.step()
    before = await asking.changes()
    key = (await asking.step("short")).key
    await asking.bench.context.store.run(
        lambda db: db.execute("DELETE FROM workers WHERE key = ?", [key])
    )
    await over(asking, "long")
    after = await asking.changes(after=before["cursor"], events=before["events"])
    assert [(job["name"], job["phase"]) for job in after["jobs"]] == [("long", "ended")]


async def test_older_database_tells_all_anew(asking: Asking) -> None:
    """After a restore, who follows has heard of changes that are yet to come."""
    await asking.submit(a_step())
    before = await asking.changes()
    after = await asking.changes(after=before["cursor"] + 1000, events=before["events"])
    assert [job["name"] for job in after["jobs"]] == ["fit"]


async def test_run_that_is_over_gets_no_further_attempt(asking: Asking) -> None:
    """Of a step that Slurm has ended just before."""
    await asking.submit(a_step(tags={"dagster-hpc/on-preempt": "resubmit"}))
    await ended(asking, JobState.PREEMPTED)
    await asking.bench.context.store.run(
        lambda db: workers.change(
            db, RUNNER, now=1.0, source="test", phase=Phase.ENDED, outcome=JobState.FAILED
        )
    )
    asking.run_is("CANCELED")
    await asking.conclude.step()
    await asking.conclude.step()
    worker = await asking.step("fit")
    assert (worker.attempt, worker.phase) == (1, Phase.ENDED)
    assert worker.concluded_at is not None


@pytest.mark.parametrize("settings", [{"steps": {"max_per_run": 1}}])
async def test_what_is_refused_leaves_no_directory(asking: Asking) -> None:
    """The bound is asked for before anything is written."""
    jobs = asking.bench.context.preparation.work.jobs
    await asking.submit(*(a_step(f"s{number}") for number in range(5)))
    assert len(list(jobs.glob("stp-*"))) == 1


async def test_what_was_asked_for_is_kept_no_longer_than_its_step(asking: Asking) -> None:
    """It may be large, and hold what nobody else should see."""
    await asking.submit(a_step())
    await asking.submitted("11")
    await over(asking, "fit")
    await asking.conclude.step()
    store = asking.bench.context.store
    assert await store.run(
        lambda db: db.execute("SELECT count(*) FROM step_requests").fetchone()
    ) == (0,)


async def test_disk_that_is_away_is_asked_again_later(asking: Asking) -> None:
    """503, and nothing goes on behind it."""
    jobs = asking.bench.context.preparation.work.jobs
    jobs.rename(jobs.with_name("away"))
    answer = await asking.post("", {"jobs": [a_step(f"s{number}") for number in range(20)]})
    assert answer.status_code == 503
    jobs.with_name("away").rename(jobs)
    statuses = await asking.submit(*(a_step(f"s{number}") for number in range(20)))
    assert {status["phase"] for status in statuses} == {"waiting"}


async def test_array_of_a_run_that_is_over_is_ended_by_one_order(asking: Asking) -> None:
    """A thousand calls of scancel would take minutes; one that others need is ended by itself."""
    await asking.submit(*(a_step(f"part[{number}]") for number in range(30)))
    await asking.submitted("20")
    names = [{"name": f"part[{number}]"} for number in range(30)]
    loop = CancelLoop(asking.bench.context)
    await asking.post("/cancel", {"jobs": names[:2]})
    await loop.step()
    assert sorted(asking.bench.scheduler.cancelled) == ["20_0", "20_1"]
    assert asking.bench.scheduler.cancel_calls == 1
    await asking.bench.context.store.run(
        lambda db: db.execute("UPDATE jobs SET is_over = 1 WHERE cancelled_at IS NOT NULL")
    )
    await asking.post("/cancel", {"jobs": names[2:]})
    await loop.step()
    assert asking.bench.scheduler.cancelled[2:] == ["20"]


async def test_steps_of_a_run_that_are_not_alike_are_ended_by_one_order(asking: Asking) -> None:
    """Each has a name of its own; those of another run are not waited for."""
    names = [f"s{number}" for number in range(8)]
    for number, name in enumerate(names):
        await asking.submit(a_step(name, tags={"dagster-hpc/time": str(number + 1)}))
    await asking.submitted(*(str(number) for number in range(30, 38)))
    loop = CancelLoop(asking.bench.context)
    await asking.post("/cancel", {"jobs": [{"name": name} for name in names]})
    await loop.step()
    assert sorted(asking.bench.scheduler.cancelled) == [str(number) for number in range(30, 38)]
    assert asking.bench.scheduler.cancel_calls == 1


async def test_step_that_cannot_be_ended_keeps_no_other(asking: Asking) -> None:
    """It is tried again."""
    for number, name in enumerate(["a", "b"]):
        await asking.submit(a_step(name, tags={"dagster-hpc/time": str(number + 1)}))
    await asking.submitted("30", "31")
    scheduler = asking.bench.scheduler
    scheduler.uncancellable = {"30"}
    loop = CancelLoop(asking.bench.context)
    await asking.post("/cancel", {"jobs": [{"name": "a"}, {"name": "b"}]})
    await loop.step()
    assert scheduler.cancelled == ["31"]
    scheduler.uncancellable = set()
    await loop.step()
    assert "30" in scheduler.cancelled
