"""What one look costs with a thousand absent jobs, and one ring with thousands of launches.

The loops are the agent's own. Slurm's commands are scripts that count themselves and print nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from sqlite_utils import Database

from hpc_agent.agent.bells import Bells
from hpc_agent.agent.context import Context
from hpc_agent.agent.serve import ServeLoop
from hpc_agent.agent.tasks import Tasks
from hpc_agent.agent.watch import WatchLoop
from hpc_agent.clock import SteadyClock
from hpc_agent.config import parse_config
from hpc_agent.dagster_plus.client import AgentApi
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.jobs.node_program import build_node_program
from hpc_agent.jobs.preparation import JobPlan, JobPreparation, JobScript
from hpc_agent.jobs.rendering import Templates
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.slurm.cli import slurm_on_this_host
from hpc_agent.slurm.values import FIELD, RECORD
from hpc_agent.store import inbox
from hpc_agent.store.inbox import Request
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import WorkerKind
from hpc_agent.workers.changes import Changes, Signature
from tests.bench.transactions import TimedStore
from tests.code_servers.conftest import make_harbour
from tests.workers import a_worker, put

# Of squeue and sacct a header of as many words as they have columns, and no record.
_HEADER = ["HEADING"] * 15
_ANSWERS = {
    "squeue": FIELD.join(_HEADER) + RECORD + "\n",
    "sacct": FIELD.join(_HEADER) + "\n",
    "scontrol": "Slurmctld(primary) at here is UP\n",
}


def looks(directory: Path) -> dict[str, dict[str, float]]:
    """Return the figures of both."""
    return {
        "a look, 1,000 jobs absent": asyncio.run(_absent(directory / "absent", 1000)),
        "a ring, 5,000 launches wait": asyncio.run(_ring(directory / "ring", 5000)),
    }


async def _absent(directory: Path, count: int) -> dict[str, float]:
    async with _context(directory) as (context, store):

        def fill(db: Database) -> None:
            for number in range(count):
                put(
                    db,
                    a_worker(
                        key=f"run-{number}",
                        kind=WorkerKind.RUN_WORKER,
                        phase=Phase.RUNNING,
                        deployment="prod",
                        location="here",
                        run_id=f"run of {number}",
                        job_id=str(number + 1),
                        created_at=time.time() - 60,
                    ),
                )

        await store.aside(fill)
        watch = WatchLoop(context)
        await watch.step()
        before = _calls(directory)
        store.times.clear()
        started = time.perf_counter()
        await watch.step()
        return {
            "seconds": round(time.perf_counter() - started, 2),
            "transactions": len(store.times),
            "Slurm commands": (_calls(directory) - before).total(),
        }


async def _ring(directory: Path, count: int) -> dict[str, float]:
    """The launches wait, since the work directory hangs."""
    async with _context(directory) as (context, store):
        hanging = _Hanging(
            work=context.preparation.work,
            templates=Templates(),
            tokens=JobTokens(b"bench"),
            program=directory,
            node_python="python3",
        )
        hung = replace(context, preparation=hanging, tasks=Tasks())
        now = time.time()
        await store.aside(
            lambda db: inbox.receive(db, [_launch(number, now) for number in range(count)])
        )
        harbour = make_harbour(hung.config, store, hung.clock, hanging)  # type: ignore[arg-type]
        serve = ServeLoop(
            hung,
            fleet=harbour.fleet,
            calls=harbour.calls,
            demand=harbour.demand,
        )
        await serve.step()
        assert len(hung.tasks) == count
        async with asyncio.timeout(60):
            while hanging.count < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        store.times.clear()
        started = time.perf_counter()
        await serve.step()
        figures = {
            "ms": round(1000 * (time.perf_counter() - started), 1),
            "transactions": len(store.times),
        }
        await hung.tasks.dismiss()
        return figures


class _Hanging(JobPreparation):
    """Prepares nothing, ever."""

    count = 0

    async def prepare(self, plan: JobPlan) -> JobScript:
        """Wait."""
        self.count += 1
        await asyncio.Event().wait()
        return await super().prepare(plan)


def _launch(number: int, now: float) -> Request:
    origin = {
        "external_repository_origin": {"repository_location_origin": {"location_name": "here"}}
    }
    run = {
        "run_id": f"run of {number}",
        "pipeline_name": "some_job",
        "external_pipeline_origin": origin,
        "pipeline_code_origin": {"repository_origin": {"executable_path": "/usr/bin/python3"}},
    }
    body = json.dumps({"request_args": {"pipeline_run": run}, "expire_at": now + 3600})
    return Request(f"request {number}", "LAUNCH_RUN", body, "prod", False, now)


def _calls(directory: Path) -> Counter[str]:
    path = directory / "calls"
    return Counter(path.read_text().split() if path.exists() else [])


@asynccontextmanager
async def _context(directory: Path) -> AsyncIterator[tuple[Context, TimedStore]]:
    commands = directory / "bin"
    commands.mkdir(parents=True)
    for name, answer in _ANSWERS.items():
        (commands / f"{name}.out").write_text(answer)
        script = commands / name
        script.write_text(f"#!/bin/sh\necho {name} >> {directory}/calls\ncat {script}.out\n")
        script.chmod(0o755)
    config = parse_config(
        {
            "control_plane": {"url": "http://127.0.0.1:9"},
            "work_dir": str(directory / "work"),
            "home": str(directory / "home"),
            "environment": {"python": "/usr/bin/python3"},
        },
        source="bench",
    )
    work = WorkDirectory(config.work_dir)
    work.make()
    store = TimedStore(config.home)
    await store.open()
    clock = SteadyClock()
    async with AgentApi(config.control_plane, token=lambda: "token", agent_id="bench") as api:
        context = Context(
            config=config,
            agent_id="bench",
            store=store,
            api=api,
            scheduler=slurm_on_this_host(
                {"PATH": f"{commands}:{os.environ['PATH']}"}, burst=10_000
            ),
            preparation=JobPreparation(
                work=work,
                templates=Templates(),
                tokens=JobTokens(b"bench"),
                program=build_node_program(work.lib),
                node_python="python3",
            ),
            changes=Changes(
                store,
                Signature(scheduler="slurm", agent_id="bench", agent_label=None),
                clock=clock,
            ),
            bells=Bells(),
            clock=clock,
        )
        yield context, store
    await store.close()
