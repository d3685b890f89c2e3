"""What single runs take on their way, and what the agent costs that has nothing to do.

Jobs of the latency part are held in the queue (``begin``): what is measured ends when sbatch has
accepted them, and nothing else shall run meanwhile.
"""

from __future__ import annotations

import sqlite3
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from hpc_agent.demo.facts import gather
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack
from hpc_agent.demo.story import Narrator

HELD = {"dagster-hpc/begin": "now+1hour"}


def measure(
    stack: Stack, say: Narrator, *, runs: int, full_runs: int, idle_seconds: float
) -> dict[str, Any]:
    """Take the measurements of single runs."""
    say(f"Agent idle for {idle_seconds:.0f} s")
    idle = idle_agent(stack, idle_seconds)
    say(f"{runs} runs, one after the other, up to sbatch")
    latency = submit_latency(stack, runs)
    say(f"{full_runs} runs to their end")
    first_events = [first_event_latency(stack) for _ in range(full_runs)]
    return {
        "scheduler": f"{stack.cluster.kind} {stack.cluster.version}",
        "bare sbatch (ms)": summary(bare_submit(stack, 20)),
        "enqueued to sbatch accepted (ms)": summary(latency),
        "job running to first event (s)": summary(first_events),
        **idle,
    }


def submit_latency(stack: Stack, count: int) -> list[float]:
    """Milliseconds from the request's entry in the gateway to the job's acceptance by sbatch."""
    waits = []
    for number in range(count):
        # Each is unlike the others, or from the third on they would be taken for a stream.
        tags = HELD | {"dagster-hpc/nice": str(number)}
        run_id = stack.webserver.launch("example", "sleepy_job", tags=tags)
        job = wait_for("not submitted", partial(submitted, stack, run_id), seconds=60)
        waits.append((job["submitted_at"] - enqueued_at(stack, job["request_id"])) * 1000)
        stack.webserver.terminate(run_id)
        stack.wait_finished(run_id)
    return waits


def submitted(stack: Stack, run_id: str) -> Mapping[str, Any] | None:
    """Return a run's job once sbatch has accepted it."""
    row = query(
        stack.config.home / "agent.db",
        "SELECT w.request_id, min(h.at) FROM workers AS w "
        "JOIN worker_history AS h ON h.key = w.key "
        "WHERE w.run_id = ? AND h.phase = 'queued' GROUP BY w.key",
        run_id,
    )
    return {"request_id": row[0], "submitted_at": row[1]} if row else None


def enqueued_at(stack: Stack, request_id: str) -> float:
    """Return when the gateway wrote a request down."""
    row = query(
        stack.directories.control_plane / "gateway.db",
        "SELECT created_at FROM requests WHERE request_id = ?",
        request_id,
    )
    return float(row[0])


def query(path: Path, statement: str, *parameters: str) -> Any:
    """Read one row of a database that another process writes."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(statement, parameters).fetchone()
    finally:
        connection.close()


def first_event_latency(stack: Stack) -> float:
    """Seconds from the job's start to the first event of the run worker."""
    run_id = stack.webserver.launch(
        "example",
        "sleepy_job",
        config={"ops": {"sleep_and_tell": {"config": {"seconds": 0}}}},
    )
    stack.wait_finished(run_id)
    times = gather(stack, run_id, location="example").timeline
    return times.first_event - times.job_running


def idle_agent(stack: Stack, seconds: float) -> dict[str, Any]:
    """Resident memory and share of a core of an agent that has nothing to do."""
    process = psutil.Process(stack.agent.pid)
    time.sleep(5)  # let the uploads of the code location settle: this is a measurement, not a test
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    used = (after.user + after.system) - (before.user + before.system)
    return {
        "agent idle: memory (MB)": round(process.memory_info().rss / 1e6, 1),
        "agent idle: share of a core (%)": round(100 * used / seconds, 3),
    }


def bare_submit(stack: Stack, count: int) -> list[float]:
    """Milliseconds of sbatch alone, called as the agent calls it."""
    script = stack.directories.local / "bare.sh"
    script.write_text("#!/bin/sh\n#SBATCH --begin=now+1hour\n#SBATCH --output=/dev/null\ntrue\n")
    if stack.cluster.kind != "slurm":
        return []
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin"}
    if stack.cluster.slurm_conf:
        environment["SLURM_CONF"] = str(stack.cluster.slurm_conf)
    times, jobs = [], []
    for _ in range(count):
        started = time.perf_counter()
        done = subprocess.run(
            ["sbatch", "--parsable", "--export=NIL", str(script)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        times.append((time.perf_counter() - started) * 1000)
        jobs.append(done.stdout.strip().split(";")[0])
    subprocess.run(["scancel", *jobs], env=environment, check=True)
    return times


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return median, 95th percentile and count."""
    if not values:
        return {}
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 2),
        "p95": round(ordered[min(int(len(ordered) * 0.95), len(ordered) - 1)], 2),
        "count": len(ordered),
    }
