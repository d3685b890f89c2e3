"""The demo, step by step: everything is started, one run goes through, and all of it is shown."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

from hpc_agent.demo.cluster import ClusterChoice, choose_cluster
from hpc_agent.demo.facts import JobFacts, RunFacts, gather
from hpc_agent.demo.stack import Directories, Stack
from hpc_agent.errors import HpcAgentError

LOCATION = "example"
PARTITION = "2026-01-01"
_WORTH_HEARING = frozenset({"MaterializationEvent", "AssetCheckEvaluationEvent", "RunFailureEvent"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """``hold`` is called when all is shown and returns when the demo may end."""

    scheduler: str
    webserver_port: int
    hold: Callable[[RunFacts], None]


class Narrator:
    """Says what happens, with the time since the beginning, on standard error."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        """Say one thing."""
        sys.stderr.write(f"[{time.monotonic() - self._started:6.1f} s] {text}\n")
        sys.stderr.flush()


def tell(options: DemoOptions) -> RunFacts:
    """Run the demo and return what came of it. Whatever happens, nothing is left behind."""
    say = Narrator()
    with _interruptible(), _scratch() as local:
        cluster = choose_cluster(options.scheduler, local / "slurm", say)
        try:
            say(f"Scheduler: {cluster.version} ({cluster.found})")
            with _shared_directory(cluster, local) as shared:
                stack = Stack(cluster, Directories(local=local, shared=shared), say=say)
                try:
                    facts = _play(stack, say, options)
                    options.hold(facts)
                finally:
                    say("Taking everything down")
                    stack.close()
        finally:
            cluster.close(say)
    say("Nothing is left behind")
    return facts


def _play(stack: Stack, say: Narrator, options: DemoOptions) -> RunFacts:
    say("Starting the control plane: stock dagster-webserver and dagster-daemon, and the gateway")
    stack.start_control_plane(webserver_port=options.webserver_port)
    say(f"  UI at {stack.webserver.url}, agent API at {stack.api_url}")
    say(f"  Log in to the UI with the user token {stack.webserver.token}")
    say("  Your browser does not know the demo's certificate, and will say so")
    say("Starting the agent")
    stack.configure_agent()
    stack.start_agent()
    say("Deploying the example code location: its code server is a job")
    stack.deploy_example()
    stack.wait_loaded(LOCATION)
    server = stack.job_of(location=LOCATION)
    say(f"  loaded from code server {server['description']}")
    say("Launching a run that materializes all assets, as a job")
    run_id = stack.webserver.launch(LOCATION, "__ASSET_JOB", tags={"dagster/partition": PARTITION})
    _follow(stack, say, run_id)
    facts = gather(stack, run_id, location=LOCATION)
    if find_spec("dagster_hpc") is None:
        return facts
    say("Launching a run of which a step is a job of its own (dagster-hpc)")
    return replace(facts, step=_play_steps(stack, say))


def _play_steps(stack: Stack, say: Narrator) -> JobFacts:
    """Launch the job with a step that is a job. Raises HpcAgentError when that fails."""
    run_id = stack.webserver.launch(LOCATION, "stepwise_job")
    status = _follow(stack, say, run_id)
    jobs = stack.jobs_of_steps(run_id)
    if status != "SUCCESS" or len(jobs) != 1:
        raise HpcAgentError(f"run {run_id} is {status}, and {len(jobs)} of its steps are jobs")
    return JobFacts(job_id=jobs[0]["job_id"], node=jobs[0]["nodes"])


def _follow(stack: Stack, say: Narrator, run_id: str) -> str:
    """Say what the run's own log says that is worth hearing, and return how it ends."""
    shown = 0
    while True:
        finished = stack.webserver.finished(run_id)
        events = stack.webserver.events(run_id)
        for event in events[shown:]:
            kind, message = event["__typename"], event.get("message") or ""
            of_job = kind == "EngineEvent" and message.startswith(("Run worker", "Job", "Step"))
            if of_job or kind in _WORTH_HEARING:
                say(f"  {message.splitlines()[0]}")
        shown = len(events)
        if finished:
            say(f"  run {run_id}: {finished}")
            return finished
        stack.agent.check()
        stack.control_plane.check()
        time.sleep(0.5)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A private directory on this machine, its path short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="hpc-demo-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@contextmanager
def _shared_directory(cluster: ClusterChoice, local: Path) -> Iterator[Path]:
    """Where jobs see it: in the home directory, when they run on other machines."""
    if not cluster.is_shared:
        yield local / "shared"
        return
    path = Path(tempfile.mkdtemp(prefix=".hpc-agent-demo-", dir=Path.home()))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the demo like Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
