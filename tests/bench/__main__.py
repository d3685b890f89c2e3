"""Measure, in one run on one machine, what a user waits for and what an administrator pays for."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpc_agent.demo.cluster import ClusterChoice, choose_cluster
from hpc_agent.demo.stack import Directories, Stack
from hpc_agent.demo.story import Narrator
from tests.bench import at_once, events, looks, scale, single, steps, transactions
from tests.bench.peers import extent, page, report, session, table

SETTINGS = {
    # As fast as sbatch goes: the bound on Slurm commands is not what is measured.
    "scheduler": {"commands_burst": 1000, "commands_per_second": 100},
    "relay": {"bind": "127.0.0.1"},
}
METRICS = "metrics.sock"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its tables."""
    made = parser()
    options = made.parse_args(arguments)
    if options.given:
        if not options.page:
            made.error("--from FILE needs --page FILE")
        page.write(options.page, report.load(options.given))
        return 0
    say = Narrator()
    figures: dict[str, Any] = {}
    if options.part in {"all", "steps"}:
        figures |= on_a_stack(options, say)
    if options.part in {"all", "store"}:
        figures |= of_store(say)
    if options.part in {"all", "events"}:
        figures |= of_events(say)
    if options.part in {"all", "peers"}:
        chosen = extent.FULL if options.scale == "full" else extent.QUICK
        measured = session.measure(
            replace(chosen, task_runs=options.task_runs or chosen.task_runs),
            say,
            only=options.only,
            minutes=options.minutes,
        )
        if options.page:
            page.write(options.page, measured)
        figures["peers"] = measured
    show(figures, options.json)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    made = argparse.ArgumentParser(prog="make bench", description=__doc__)
    made.add_argument("--runs", type=int, default=50, help="runs of the latency part")
    made.add_argument("--full-runs", type=int, default=3, help="runs that really run")
    made.add_argument("--idle-seconds", type=float, default=60.0)
    made.add_argument(
        "--scale",
        choices=["none", "short", "full"],
        default="short",
        help="the part with many jobs; it needs a Slurm cluster of its own, which it starts",
    )
    made.add_argument(
        "--part",
        choices=["all", "store", "steps", "events", "peers"],
        default="all",
        help="store: what the state database and looks into it cost, without Slurm; "
        "steps: what it costs that a run asks for jobs, beside a bare job array; "
        "events: what it costs to store an event through the gateway, without Slurm; "
        "peers: all of it beside what a user would pick instead",
    )
    made.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="of the peers, these contestants"
    )
    made.add_argument(
        "--task-runs", type=int, metavar="N", help="of the peers, complete so many runs at once"
    )
    made.add_argument(
        "--minutes", type=float, default=math.inf, help="of the peers, begin no turn after these"
    )
    made.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write JSON, to a file or to stdout"
    )
    made.add_argument(
        "--page", type=Path, metavar="FILE", help="of the peers, write the page and its plots"
    )
    made.add_argument(
        "--from",
        dest="given",
        type=Path,
        metavar="FILE",
        help="measure nothing: write the page out of the JSON of an earlier session",
    )
    return made


def on_a_stack(options: argparse.Namespace, say: Narrator) -> dict[str, Any]:
    """Take the measurements that need a control plane, an agent and a scheduler."""
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
                figures = {} if options.part == "steps" else of_single_runs(stack, options, say)
                figures |= of_steps(stack, options, say)
            finally:
                stack.close()
            if options.part != "steps":
                figures |= many_jobs(cluster, local / "scale", options.scale, say)
        finally:
            cluster.close(say)
    return figures


def of_single_runs(stack: Stack, options: argparse.Namespace, say: Narrator) -> dict[str, Any]:
    """Take the measurements of runs, one after the other."""
    return single.measure(
        stack,
        say,
        runs=options.runs,
        full_runs=options.full_runs,
        idle_seconds=options.idle_seconds,
    )


def start(stack: Stack) -> None:
    """Start all of a stack, and the example location."""
    stack.directories.control_plane.mkdir(mode=0o700, parents=True)
    at_once.write_dagster_yaml(stack.directories.control_plane)
    stack.start_control_plane()
    stack.configure_agent()
    stack.start_agent()
    stack.deploy_example()
    stack.wait_loaded("example")


def of_steps(stack: Stack, options: argparse.Namespace, say: Narrator) -> dict[str, Any]:
    """Take the measurements of runs that ask for jobs, where there is a Slurm to compare with."""
    if stack.cluster.kind != "slurm" or options.scale == "none":
        return {}
    commands, mapped = (1000, 1000) if options.scale == "full" else (100, 10)
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


def show(figures: Mapping[str, Any], json_file: str | None) -> None:
    """Print the figures for people, or write them for programs."""
    if json_file:
        text = json.dumps(_for_programs(figures), indent=2, ensure_ascii=False) + "\n"
        if json_file == "-":
            sys.stdout.write(text)
            return
        Path(json_file).write_text(text)
    for name, value in figures.items():
        if name == "transactions":
            sys.stdout.write(transactions.table(value) + "\n")
        elif name == "peers":
            sys.stdout.write(table.text(value.rows) + "\n")
        elif isinstance(value, dict):
            shown = ", ".join(f"{key} {number}" for key, number in value.items())
            sys.stdout.write(f"{name:40} {shown or 'not measured'}\n")
        else:
            sys.stdout.write(f"{name:40} {value}\n")


def _for_programs(figures: Mapping[str, Any]) -> dict[str, Any]:
    content = dict(figures)
    if "transactions" in content:
        slow = transactions.too_slow(content["transactions"])
        content[f"transactions above {transactions.LIMIT_MS:.0f} ms"] = slow
    if "peers" in content:
        content["peers"] = report.content(content["peers"])
    return content


if __name__ == "__main__":
    sys.exit(main())
