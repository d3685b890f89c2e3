"""Measure, in one run on one machine, what a user waits for and what an administrator pays for.

Jobs of the latency part are held in the queue (``begin``): what is measured ends when sbatch has
accepted them, and nothing else shall run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from hpc_agent.demo.cluster import ClusterChoice, choose_cluster
from hpc_agent.demo.facts import gather
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Directories, Stack
from hpc_agent.demo.story import Narrator
from tests.bench import events, looks, scale, steps, transactions

HELD = {"dagster-hpc/begin": "now+1hour"}
SETTINGS = {
    # As fast as sbatch goes: the bound on Slurm commands is not what is measured.
    "scheduler": {"commands_burst": 1000, "commands_per_second": 100},
    "relay": {"bind": "127.0.0.1"},
}
METRICS = "metrics.sock"
# Runs go to the agent at once instead of waiting for the daemon's next look at its queue.
AT_ONCE = """
telemetry: {enabled: false}
run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=50, help="runs of the latency part")
    parser.add_argument("--full-runs", type=int, default=3, help="runs that really run")
    parser.add_argument("--idle-seconds", type=float, default=60.0)
    parser.add_argument(
        "--scale",
        choices=["none", "short", "full"],
        default="short",
        help="the part with many jobs; it needs a Slurm cluster of its own, which it starts",
    )
    parser.add_argument(
        "--part",
        choices=["all", "store", "steps", "events"],
        default="all",
        help="store: what the state database and looks into it cost, without Slurm; "
        "steps: what it costs that a run asks for jobs, beside a bare job array; "
        "events: what it costs to store an event through the gateway, without Slurm",
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    say = Narrator()
    if options.part == "store":
        show(of_store(say), as_json=options.json)
        return 0
    if options.part == "events":
        show(of_events(say), as_json=options.json)
        return 0
    with tempfile.TemporaryDirectory(prefix="hpc-bench-") as path:
        local = Path(path)
        cluster = choose_cluster("auto", local / "slurm", say)
        settings = {**SETTINGS, "metrics": {"listen": f"unix:{local / METRICS}"}}
        stack = Stack(
            cluster, Directories(local=local, shared=local / "shared"), say=say, settings=settings
        )
        try:
            try:
                start(stack)
                figures = {} if options.part == "steps" else measure(stack, options, say)
                figures |= of_steps(stack, options, say)
            finally:
                stack.close()
            if options.part == "steps":
                show(figures, as_json=options.json)
                return 0
            figures |= many_jobs(cluster, local / "scale", options.scale, say)
        finally:
            cluster.close(say)
    show(figures | of_store(say) | of_events(say), as_json=options.json)
    return 0


def measure(stack: Stack, options: argparse.Namespace, say: Narrator) -> dict[str, Any]:
    """Take the measurements of single runs."""
    say(f"Agent idle for {options.idle_seconds:.0f} s")
    idle = idle_agent(stack, options.idle_seconds)
    say(f"{options.runs} runs, one after the other, up to sbatch")
    latency = submit_latency(stack, options.runs)
    say(f"{options.full_runs} runs to their end")
    first_events = [first_event_latency(stack) for _ in range(options.full_runs)]
    return {
        "scheduler": f"{stack.cluster.kind} {stack.cluster.version}",
        "bare sbatch (ms)": summary(bare_submit(stack, 20)),
        "enqueued to sbatch accepted (ms)": summary(latency),
        "job running to first event (s)": summary(first_events),
        **idle,
    }


def start(stack: Stack) -> None:
    """Start all of a stack, and the example location."""
    stack.directories.control_plane.mkdir(mode=0o700, parents=True)
    (stack.directories.control_plane / "dagster.yaml").write_text(AT_ONCE)
    stack.start_control_plane()
    stack.configure_agent()
    stack.start_agent()
    stack.deploy_example()
    stack.wait_loaded("example")


def of_steps(stack: Stack, options: argparse.Namespace, say: Narrator) -> dict[str, Any]:
    """Take the measurements of runs that ask for jobs, where there is a Slurm to compare with."""
    if stack.cluster.kind != "slurm" or options.scale == "none":
        return {}
    commands, mapped = (1000, 100) if options.scale == "full" else (100, 10)
    say(f"{commands} commands and {mapped} steps of a run, and the same as bare job arrays")
    return steps.steps(stack, commands, mapped, stack.directories.local / METRICS)


def many_jobs(
    cluster: ClusterChoice, directory: Path, form: str, say: Narrator
) -> dict[str, Mapping[str, float]]:
    """Take the measurements with many jobs; never on a cluster that others use."""
    if form == "none" or cluster.directory is None or cluster.slurm_conf is None:
        return {}
    is_full = form == "full"
    counts, seconds = ((10, 1000, 10_000), 120.0) if is_full else ((1000,), 60.0)
    figures: dict[str, Mapping[str, float]] = {}
    with scale.opened(cluster.slurm_conf, directory) as bench:
        say("1,000 runs that are due at once, submitted in each way")
        ways = scale.submissions(bench, 1000, full=is_full)
        figures |= {f"1,000 runs: {way}": found for way, found in ways.items()}
        for count in counts:
            say(f"An agent that tracks {count:,} jobs (takes {2 + count // 2000} minutes)")
            figures[f"{count:,} jobs tracked"] = scale.tracking(bench, count, seconds=seconds)
    return figures


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


def of_store(say: Narrator) -> dict[str, Any]:
    """Take the measurements that need no cluster: the state database and what looks into it."""
    say("Transactions of the loops, after 100,000 concluded workers and with 10,000 that wait")
    with tempfile.TemporaryDirectory(prefix="hpc-bench-store-") as path:
        directory = Path(path)
        return {
            **looks.looks(directory / "looks"),
            "transactions": transactions.transactions(directory / "transactions"),
        }


def of_events(say: Narrator) -> dict[str, Any]:
    """Take the measurements of the gateway's event writes, which need no cluster."""
    say("Events through the gateway and past it, on SQLite and on PostgreSQL")
    with tempfile.TemporaryDirectory(prefix="hpc-bench-events-") as path:
        return dict(events.events(Path(path)))


def show(figures: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the figures for programs or for people."""
    if as_json:
        slow = transactions.too_slow(figures.get("transactions", {}))
        marked = {**figures, f"transactions above {transactions.LIMIT_MS:.0f} ms": slow}
        sys.stdout.write(json.dumps(marked, indent=2) + "\n")
        return
    for name, value in figures.items():
        if name == "transactions":
            sys.stdout.write(transactions.table(value) + "\n")
            continue
        shown = value
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {number}" for key, number in value.items()) or "not measured"
        sys.stdout.write(f"{name:40} {shown}\n")


if __name__ == "__main__":
    sys.exit(main())
