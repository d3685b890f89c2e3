"""The measure loop: after a run's job has ended, what it used is told in the run's log.

slurmdbd learns of an end late, so accounting is asked after a while, once for all jobs that have
ended, and a few times at most; then the exit record must do. No run waits for this. The assets that
the job has materialized are told of it too, once all of them are known: when the run is over, or
its step.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.dagster_plus import agent_calls
from hpc_agent.errors import ControlPlaneError, SchedulerError
from hpc_agent.isolation import for_each
from hpc_agent.runs import efficiency
from hpc_agent.runs.asset_records import AssetRecords, asset_records
from hpc_agent.runs.efficiency import Efficiency
from hpc_agent.slurm.scheduler import Usage
from hpc_agent.store import job_usage, steps, workers
from hpc_agent.store.workers import Worker
from hpc_agent.workers import run_log

log = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0
_ASK_AFTER_SECONDS = 8.0
_ASK_AGAIN_SECONDS = 30.0
_GIVE_UP_AFTER_SECONDS = 90.0
# So long the assets of a run wait for a control plane that is away.
_WITHOUT_ASSETS_AFTER_SECONDS = 3000.0
_TOO_OLD_SECONDS = 3600.0
_RUNS_AT_ONCE = 200
# A run may have thousands of steps that are over at once: of those only the figures are kept.
_WORTH_A_LINE_SECONDS = 60.0

_Measured = tuple[Worker, Usage | None]


class MeasureLoop:
    """Tells what jobs have used."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def step(self) -> float:
        """Measure what has ended long enough ago; return when the next one is due."""
        now = self._context.clock()
        ended = await self._context.store.run(
            lambda db: workers.to_measure(db, since=now - _TOO_OLD_SECONDS)
        )
        due = [worker for worker in ended if now - (worker.ended_at or now) >= _ASK_AFTER_SECONDS]
        if not due:
            return _ASK_AFTER_SECONDS if ended else _IDLE_SECONDS
        used = await self._usage(due)
        known: list[_Measured] = []
        for worker in due:
            usage = used.get(str(worker.own_job_id))
            is_last = worker.own_job_id is None or self._ended_ago(worker) >= _GIVE_UP_AFTER_SECONDS
            if is_last or (usage is not None and usage.cpu_seconds is not None):
                known.append((worker, usage))
        ready = await self._with_assets_known(known)
        failed = await for_each(
            "measure",
            ready,
            self._tell,
            name=lambda each: each[0].key,
            fields=lambda each: each[0].log_fields,
        )
        waits = len(ready) < len(due) or failed
        return _ASK_AGAIN_SECONDS if waits else _ASK_AFTER_SECONDS

    async def _usage(self, ended: Sequence[Worker]) -> Mapping[str, Usage]:
        """Ask accounting; where it is away nothing is known of any worker, and time goes on."""
        ids = [worker.own_job_id for worker in ended if worker.own_job_id is not None]
        if not ids:
            return {}
        since = min(worker.submitted_at or worker.created_at for worker in ended)
        try:
            return await self._context.scheduler.usage(
                ids,
                since=datetime.fromtimestamp(since, UTC)
                - self._context.clock.ahead()
                - timedelta(minutes=5),
            )
        except SchedulerError as error:
            log.info("what %d jobs have used is not known yet: %s", len(ended), error)
            return {}

    def _ended_ago(self, worker: Worker) -> float:
        now = self._context.clock()
        return now - (worker.ended_at or now)

    async def _with_assets_known(self, measured: Sequence[_Measured]) -> list[_Measured]:
        """Return those whose runs are over, or are waited for no longer."""
        if not self._context.config.runs.asset_records:
            return list(measured)
        over: set[str] = set()
        patience = _GIVE_UP_AFTER_SECONDS
        try:
            over = await self._over([worker for worker, _ in measured])
        except ControlPlaneError as error:
            log.info("which runs are over is not known: %s", error)
            if error.retryable:
                patience = _WITHOUT_ASSETS_AFTER_SECONDS
        return [
            (worker, usage)
            for worker, usage in measured
            if worker.step is not None
            or worker.run_id in over
            or self._ended_ago(worker) >= patience
        ]

    async def _over(self, ended: Sequence[Worker]) -> set[str]:
        over: set[str] = set()
        for deployment in sorted({worker.deployment for worker in ended}):
            ids = [str(each.run_id) for each in ended if each.deployment == deployment]
            for first in range(0, len(ids), _RUNS_AT_ONCE):
                some = ids[first : first + _RUNS_AT_ONCE]
                over |= set(
                    await agent_calls.finished_runs(self._context.api, some, deployment=deployment)
                )
        return over

    async def _asset_records(self, worker: Worker, found: Efficiency) -> AssetRecords:
        """Return what the run's assets are told; nothing where the control plane refuses."""
        context = self._context
        if not context.config.runs.asset_records:
            return AssetRecords()
        if worker.step is not None:
            if not _is_worth_telling(worker, found):
                return AssetRecords()
        elif await context.store.run(lambda db: steps.count(db, str(worker.run_id))):
            return AssetRecords()  # of what its steps' jobs used, its own says nothing
        is_first = worker.attempt == 1 and not worker.step_attempt and not worker.restart_count
        ahead = context.clock.ahead().total_seconds()
        since = None if is_first else (worker.started_at or 0.0) - ahead
        try:
            return await asset_records(context.api, worker, found, since=since, wall=context.wall)
        except ControlPlaneError as error:
            if error.retryable and self._ended_ago(worker) < _WITHOUT_ASSETS_AFTER_SECONDS:
                raise
            log.warning("run %s: its assets are not told what it used: %s", worker.run_id, error)
            return AssetRecords()

    async def _tell(self, measured: _Measured) -> None:
        worker, usage = measured
        work, context = self._context.preparation.work, self._context
        record = await asyncio.to_thread(work.exit_record, worker.key)
        found = efficiency.measure(worker, usage, record)
        line, entries = efficiency.describe(worker, found), efficiency.metadata(found)
        records = await self._asset_records(worker, found)

        def write(db: Database) -> None:
            wall, now = context.wall(), context.clock()
            if _is_worth_telling(worker, found):
                run_log.say_line(db, worker, line, now=wall, metadata=entries)
            for event in records.events:
                run_log.say(db, worker, event, now=wall)
            if records.words:
                run_log.say_line(db, worker, records.words, now=wall)
            job_usage.keep(db, worker.key, asdict(found), records.assets)
            workers.change(db, worker.key, now=now, source="agent", measured_at=now)

        await context.store.run(write)


def _is_worth_telling(worker: Worker, found: Efficiency) -> bool:
    return worker.step is None or found.elapsed >= _WORTH_A_LINE_SECONDS
