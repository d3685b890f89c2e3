"""Many jobs: what submitting them costs, and what an agent costs that tracks them.

The agent is a process of its own on a real Slurm whose jobs stay in the queue (``begin``). In the
control plane's place is a socket that answers at once, so that the agent alone is measured. Between
the agent and Slurm's commands are wrappers that count them; the bare loop goes through them too.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from hpc_agent.config import Environment
from hpc_agent.demo.processes import wait_for
from hpc_agent.jobs.array_script import likeness_of
from hpc_agent.jobs.directory import NodeSpec, WorkDirectory
from hpc_agent.jobs.node_program import build_node_program
from hpc_agent.jobs.options import Setting
from hpc_agent.jobs.preparation import JobPlan, JobPreparation
from hpc_agent.jobs.rendering import Templates
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.store import workers
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from tests.agent.gateway import scripted_gateway
from tests.relay.fake_control_plane import Received

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo")
NO_BUCKET = {"commands_burst": 100_000, "commands_per_second": 10_000}
_SETTLE_SECONDS = 75.0
_RESTARTED_SECONDS = 35.0  # one heartbeat, one look
_STOPPED = threading.Event()
_HELD_SCRIPT = "#!/bin/sh\n#SBATCH --begin=now+1hour\n#SBATCH --output=/dev/null\ntrue\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A Slurm cluster of our own, a directory, and the address of the control plane's stand-in."""

    slurm_conf: Path
    directory: Path
    url: str

    @property
    def bin(self) -> Path:
        """Where the counting wrappers are."""
        return self.directory / "bin"

    def environment(self) -> dict[str, str]:
        """Return the environment in which Slurm's commands are counted."""
        return {
            "SLURM_CONF": str(self.slurm_conf),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/root"),
        }

    def calls(self) -> Counter[str]:
        """Return how often each command was called."""
        path = self.directory / "calls"
        return Counter(path.read_text().split() if path.exists() else [])

    def clear(self) -> None:
        """End all jobs: nothing else runs on this cluster."""
        subprocess.run(["scancel", "--me"], env=self.environment(), check=True)


@contextmanager
def opened(slurm_conf: Path, directory: Path) -> Iterator[Bench]:
    """Write the wrappers and listen in the control plane's place."""
    directory.mkdir(parents=True)
    with scripted_gateway(_answer) as gateway:
        bench = Bench(slurm_conf=slurm_conf, directory=directory, url=gateway.url)
        bench.bin.mkdir()
        for command in COMMANDS:
            wrapper = bench.bin / command
            count = f"echo {command} >> {directory}/calls"
            wrapper.write_text(f'#!/bin/sh\n{count}\nexec {shutil.which(command)} "$@"\n')
            wrapper.chmod(0o755)
        yield bench


def _answer(call: Received) -> tuple[int, Any]:
    """Answer as a control plane without news: polls are held as long as they may be."""
    asked = re.search(r"wait=(\d+)", call.headers.get("prefer", ""))
    if asked:
        _STOPPED.wait(int(asked[1]))
    done = {"ok": True}
    data = {
        "userCloudAgent": {"popUserCloudAgentRequests": []},
        "runs": {"addRunTags": done},
        "eventLogs": {"StoreEvent": done},
    }
    if b"StoreEvent" in call.body or b"addRunTags" in call.body:
        del data["userCloudAgent"]
    return 200, {"data": data}


class TrackingAgent:
    """An agent with a home of its own, and the jobs that it has to submit."""

    def __init__(self, bench: Bench, name: str, **scheduler: Any) -> None:
        self.bench = bench
        self._directory = bench.directory / name
        self._directory.mkdir()
        self._config = self._directory / "agent.yaml"
        self._log = self._directory / "agent.log"
        self._process: subprocess.Popen[bytes] | None = None
        token = self._directory / "token"
        token.touch(mode=0o600)
        token.write_text("agent:bench:secret")
        settings = {"slurm_conf": str(bench.slurm_conf), "bin_dir": str(bench.bin), **scheduler}
        self._config.write_text(
            yaml.safe_dump(
                {
                    "control_plane": {"url": bench.url, "token_file": str(token)},
                    "work_dir": str(self._directory / "work"),
                    "home": str(self._directory / "home"),
                    "scheduler": settings,
                    "relay": {"bind": "127.0.0.1"},
                }
            )
        )

    async def enqueue(self, count: int) -> None:
        """Write the intents of so many runs, as they are once their launches are taken in."""
        work = WorkDirectory(self._directory / "work")
        work.make()
        preparation = JobPreparation(
            work=work,
            templates=Templates(),
            tokens=JobTokens(b"bench"),
            program=build_node_program(work.lib),
            node_python="python3",
        )
        store = Store(self._directory / "home")
        await store.open()
        made = [await _intent(preparation) for _ in range(count)]
        await store.run(lambda db: [workers.insert(db, worker) for worker in made])
        await store.close()

    def start(self) -> float:
        """Start the agent; return the seconds until it serves."""
        started = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hpc_agent", "start", "--config", str(self._config)],
                stderr=log,
            )
        wait_for(
            "the agent does not connect",
            lambda: b"connected to" in self._log.read_bytes(),
            seconds=120,
        )
        return time.perf_counter() - started

    def stop(self) -> None:
        """Stop the agent; its jobs stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    def wait_submitted(self, count: int, *, seconds: float = 1800) -> float:
        """Return the seconds from the first submission to the last job's id."""

        def times() -> tuple[float, float] | None:
            submitted, first, last = self._query(
                "SELECT (SELECT count(*) FROM jobs), (SELECT min(submitting_since) FROM workers), "
                "(SELECT max(at) FROM worker_history WHERE phase = 'queued')"
            )
            return (first, last) if submitted == count else None

        first, last = wait_for(f"{count} jobs are not submitted", times, seconds=seconds)
        return last - first

    def wait_told(self) -> None:
        """Wait until the control plane has been told everything."""
        wait_for(
            "the outbox does not drain",
            lambda: self._query("SELECT count(*) FROM outbox WHERE refused IS NULL")[0] == 0,
            seconds=600,
        )

    def tracked(self) -> int:
        """Return how many jobs the agent has in the queue."""
        return int(self._query("SELECT count(*) FROM jobs WHERE NOT is_over")[0])

    def idle(self, seconds: float) -> dict[str, float]:
        """Return what the agent costs that has nothing to do but to look after its jobs."""
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        time.sleep(_SETTLE_SECONDS)  # the fast looks after a submission: not what is measured
        calls, before = self.bench.calls(), process.cpu_times()
        time.sleep(seconds)
        after, looks = process.cpu_times(), self.bench.calls() - calls
        own = after.user + after.system - before.user - before.system
        children = (
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
        return {
            "Slurm commands a minute": round(60 * looks.total() / seconds, 1),
            "agent, share of a core (%)": round(100 * own / seconds, 3),
            "agent's CPU per look (ms)": round(1000 * own / max(looks["squeue"], 1), 1),
            "Slurm's commands, share of a core (%)": round(100 * children / seconds, 3),
            "memory (MB)": round(process.memory_info().rss / 1e6, 1),
        }

    def memory_after(self, seconds: float) -> float:
        """Return the resident memory in MB once the loops have had their first turns."""
        assert self._process is not None
        time.sleep(seconds)
        return round(psutil.Process(self._process.pid).memory_info().rss / 1e6, 1)

    def _query(self, statement: str, *parameters: str) -> Any:
        path = self._directory / "home" / "agent.db"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return connection.execute(statement, parameters).fetchone()
        finally:
            connection.close()


async def _intent(preparation: JobPreparation) -> Worker:
    key = f"run-{uuid.uuid4().hex[:20]}"
    spec = NodeSpec(
        key=key,
        kind=WorkerKind.RUN_WORKER,
        argv=["true"],
        environment={},
        working_directory=None,
        grace_seconds=1,
    )
    script = await preparation.prepare(
        JobPlan(
            spec=spec,
            title="Dagster run of the benchmark",
            settings=[Setting("begin", "now+1hour", "the benchmark")],
            environment=Environment(),
        )
    )
    return Worker(
        key=key,
        kind=WorkerKind.RUN_WORKER,
        phase=Phase.INTENT,
        deployment="prod",
        location="example",
        run_id=str(uuid.uuid4()),
        job_name="bench",
        created_at=time.time(),
        likeness=likeness_of(script, key),
    )


def bare_loop(bench: Bench, count: int) -> float:
    """Return the seconds of so many calls of sbatch, one after the other."""
    script = bench.directory / "bare.sh"
    script.write_text(_HELD_SCRIPT)
    environment = bench.environment()
    started = time.perf_counter()
    for _ in range(count):
        argv = ["sbatch", "--parsable", "--export=NIL", str(script)]
        subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - started
    bench.clear()
    return seconds


def agent_submits(bench: Bench, name: str, count: int, **scheduler: Any) -> dict[str, float]:
    """Return how long the agent takes to submit so many due runs, and in how many calls."""
    agent = TrackingAgent(bench, name, **scheduler)
    asyncio.run(agent.enqueue(count))
    before = bench.calls()["sbatch"]
    agent.start()
    try:
        seconds = agent.wait_submitted(count)
    finally:
        agent.stop()
        bench.clear()
    return {"seconds": round(seconds, 2), "calls of sbatch": bench.calls()["sbatch"] - before}


def submissions(bench: Bench, count: int, *, full: bool) -> dict[str, dict[str, float]]:
    """Submit as many runs in each way, side by side."""
    bare = bare_loop(bench, count)
    ways = {
        "arrays": agent_submits(bench, "arrays", count),
        "arrays, no rate limit": agent_submits(bench, "arrays-fast", count, **NO_BUCKET),
        "single jobs, no rate limit": agent_submits(
            bench, "singles-fast", count, arrays=False, **NO_BUCKET
        ),
    }
    if full:
        ways["single jobs"] = agent_submits(bench, "singles", count, arrays=False)
    return {
        "bare sbatch loop": {"seconds": round(bare, 2), "calls of sbatch": count, "of bare": 1.0},
        **{
            way: {**figures, "of bare": round(figures["seconds"] / bare, 3)}
            for way, figures in ways.items()
        },
    }


def tracking(bench: Bench, count: int, *, seconds: float) -> Mapping[str, float]:
    """Return what an agent costs that tracks so many jobs, and how fast it is back after a stop."""
    agent = TrackingAgent(bench, f"tracking-{count}", **NO_BUCKET)
    asyncio.run(agent.enqueue(count))
    agent.start()
    try:
        agent.wait_submitted(count)
        agent.wait_told()
        figures = agent.idle(seconds)
        agent.stop()
        restart = agent.start()
        adopted = agent.tracked()
        memory = agent.memory_after(_RESTARTED_SECONDS)
    finally:
        agent.stop()
        bench.clear()
    return {
        **figures,
        "restart to serving (s)": round(restart, 2),
        "adopted": adopted,
        "memory after restart (MB)": memory,
    }
