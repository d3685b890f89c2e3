"""What it costs that a run asks for jobs, beside a job array of the same commands."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

from hpc_agent.demo.stack import Stack
from hpc_agent.inspection.names import find_worker
from hpc_agent.store.database import read_only

_COMMAND = ["/bin/true"]
_SECONDS = 5400.0
_LOOK_SECONDS = 0.5
_CALLS = "hpc_agent_scheduler_call_duration_seconds_count"


def steps(stack: Stack, commands: int, mapped: int, metrics: Path) -> dict[str, Any]:
    """Return the figures of so many commands, and of so many steps of Dagster."""
    stack.deploy(
        {"asking": {"code_source": {"python_file": str(Path(__file__).parent / "asking.py")}}}
    )
    stack.wait_loaded("asking")
    config: dict[str, Any] = {"ops": {"asks": {"config": {"count": commands, "command": _COMMAND}}}}
    bare = bare_array(stack, commands, _COMMAND, memory="20M")
    told, asked = _run(stack, "asking", config, metrics)
    figures = json.loads(next(line for line in told if line.startswith("figures "))[8:])
    ended = float(figures["all ended (s)"])
    config = {"ops": {"parts": {"config": {"count": mapped}}}}
    python = [sys.executable, "-c", "import dagster, dagster_cloud"]
    bare_steps = bare_array(stack, mapped, python, memory="300M")
    began = time.monotonic()
    _, of_steps = _run(stack, "mapping", config, metrics)
    seconds = time.monotonic() - began
    return {
        f"{commands} commands of a run": figures | asked,
        f"{commands} commands as a bare job array (s)": round(bare, 2),
        "commands: times a bare array": round(ended / bare, 2),
        f"{mapped} mapped steps": {"run (s)": round(seconds, 2), **of_steps},
        f"{mapped} imports of dagster as a bare job array (s)": round(bare_steps, 2),
        "mapped steps: times a bare array": round(seconds / bare_steps, 2),
    }


def bare_array(stack: Stack, count: int, command: list[str], *, memory: str) -> float:
    """Return the seconds from sbatch to the last end of an array of these commands."""
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin"}
    if stack.cluster.slurm_conf:
        environment["SLURM_CONF"] = str(stack.cluster.slurm_conf)
    script = stack.directories.local / "array.sh"
    words = " ".join(f"'{word}'" for word in command)
    script.write_text(f"#!/bin/sh\n{words}\n")
    began, left = time.monotonic(), count
    while left:
        size = min(left, 1000)
        options = [f"--array=0-{size - 1}", "--cpus-per-task=1", f"--mem={memory}", "--time=10"]
        argv = ["sbatch", "--parsable", "--export=NIL", "--output=/dev/null", *options, str(script)]
        job = _said(argv, environment).split(";")[0]
        # Not `--wait`, which looks more and more rarely.
        while _said(["squeue", "--noheader", f"--jobs={job}"], environment):
            time.sleep(_LOOK_SECONDS)
        left -= size
    return time.monotonic() - began


def _said(argv: list[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _run(
    stack: Stack, job: str, config: Mapping[str, Any], metrics: Path
) -> tuple[list[str], dict[str, Any]]:
    """Launch a run; return its log, and what it has cost the agent until its end."""
    process = psutil.Process(stack.agent.pid)
    before, cpu = _calls(metrics), sum(process.cpu_times()[:2])
    # The default partition of the test cluster ends jobs after half an hour.
    tags = {"dagster-hpc/partition": "batch", "dagster-hpc/time": "90"}
    run_id = stack.webserver.launch("asking", job, config=config, tags=tags)
    status = stack.wait_finished(run_id, seconds=_SECONDS)
    told = [event.get("message") or "" for event in stack.webserver.events(run_id)]
    if status != "SUCCESS":
        raise SystemExit(f"run {run_id} of {job} ended {status}: {told[-5:]}")
    after = _calls(metrics)
    called = {name: after[name] - before.get(name, 0) for name in sorted(after)}
    return told, {
        "calls of Slurm": " ".join(f"{name}:{n:.0f}" for name, n in called.items() if n),
        "CPU of the agent (s)": round(sum(process.cpu_times()[:2]) - cpu, 1),
        "memory of the agent (MB)": round(process.memory_info().rss / 1e6, 1),
        "memory of the run worker (MB)": _memory_mb(stack, run_id),
    }


def _memory_mb(stack: Stack, run_id: str) -> float | None:
    """Return what the run worker had at most, as its node program has told once it was over."""
    stack.printed(run_id)
    worker = find_worker(read_only(stack.config.home), stack.job_of(run_id=run_id)["key"])
    return None if worker.max_rss_kb is None else round(worker.max_rss_kb * 1024 / 1e6, 1)


def _calls(metrics: Path) -> dict[str, float]:
    """Return how often each command of Slurm was called, as the agent's metrics have it."""
    transport = httpx.HTTPTransport(uds=str(metrics))
    with httpx.Client(transport=transport, base_url="http://localhost") as client:
        text = client.get("/metrics").text
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith(_CALLS):
            name = line.partition('command="')[2].partition('"')[0]
            found[name] = found.get(name, 0.0) + float(line.rpartition(" ")[2])
    return found
