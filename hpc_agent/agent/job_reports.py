"""What jobs say of themselves through the relay, and which tokens are theirs."""

from __future__ import annotations

import logging
import signal
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

from sqlite_utils import Database

from hpc_agent.agent.context import Context
from hpc_agent.config.access import Access
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.jobs.exit_record import ExitRecord
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.relay.identity import JobIdentity, JobReport, Permissions, ReportAnswer
from hpc_agent.runs.starts import PROCEED, Starts, is_of_another, stop
from hpc_agent.store import defs_state, launches, pools, steps, workers
from hpc_agent.store.jobs import Job
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker, WorkerKind
from hpc_agent.workers import node_evidence, run_log
from hpc_agent.workers.change import Change

log = logging.getLogger(__name__)

_BELIEVED_SECONDS = 30.0
_BELIEVED_AT_MOST = 20_000
# A node program repeats its last report for 30 s; its worker may be concluded by then.
_LAST_WORDS_SECONDS = 60.0
# dagster/_core/storage/tags.py
_STARTED_FROM = ("dagster/parent_run_id", "dagster/root_run_id")
_BACKFILL = "dagster/backfill"


class JobReports:
    """The agent's side of the relay; ``spooled`` says whether it holds events of a run."""

    def __init__(
        self, context: Context, tokens: JobTokens, *, spooled: Callable[[str], bool]
    ) -> None:
        self._context = context
        self._tokens = tokens
        self._starts = Starts(
            api=context.api,
            store=context.store,
            planners=context.planners,
            retries=context.config.runs.retries,
            spooled=spooled,
        )
        self._known: OrderedDict[str, tuple[float, JobIdentity]] = OrderedDict()
        self._heard: OrderedDict[str, float] = OrderedDict()

    async def identify(self, token: str) -> JobIdentity | None:
        """Return whose token it is; a worker that was concluded a while ago has none any more.

        Asked for every request of every job, so what was read is believed for a while. Whoever
        learns of a worker's end makes us forget it: from then on its token is for last words only.
        """
        key = self._tokens.key(token)
        if key is None:
            return None
        now = self._context.clock()
        self._heard[key] = now
        self._heard.move_to_end(key)
        if len(self._heard) > _BELIEVED_AT_MOST:
            self._heard.popitem(last=False)
        known = self._known.get(key)
        if known is not None and now < known[0]:
            return known[1]
        worker, launch = await self._context.store.run(lambda db: _known_of(db, key))
        if worker is None or (worker.concluded_at or now) < now - _LAST_WORDS_SECONDS:
            self._known.pop(key, None)
            return None
        identity = _identity(worker, launch, self._context.config.access_of(worker.location))
        if identity.is_over:
            return identity
        self._known[key] = now + _BELIEVED_SECONDS, identity
        self._known.move_to_end(key)
        if len(self._known) > _BELIEVED_AT_MOST:
            self._known.popitem(last=False)
        return identity

    async def location_of_run(self, run_id: str) -> str | None:
        """See JobDirectory.location_of_run."""
        worker = await self._context.store.run(lambda db: workers.of_run(db, run_id))
        return worker.location if worker is not None else None

    async def state_owner(self, identity: JobIdentity, key: str) -> str:
        """See JobDirectory.state_owner."""
        return await self._context.store.run(
            lambda db: defs_state.owner(db, identity.deployment, key, identity.location)
        )

    def heard(self, key: str) -> float | None:
        """Return when a worker's job was last heard of, by any request with its token."""
        return self._heard.get(key)

    def forget(self, key: str) -> None:
        """Believe nothing of a worker any more: it is over, or another attempt has its place."""
        self._known.pop(key, None)

    async def receive(self, identity: JobIdentity, report: JobReport) -> ReportAnswer:
        """Take a report; a start is answered with whether the job may go on."""
        worker = await self._context.store.run(lambda db: workers.find(db, identity.key))
        if worker is None:
            return stop("the agent does not know this job")
        if report.event == "duplicate":
            await self._duplicate(worker, report)
        refusal = _refusal(worker, report)
        if refusal is not None:
            return stop(refusal)
        if report.event == "exited":
            await self._exited(worker, report)
            return PROCEED
        answer = PROCEED
        if report.event == "started":
            answer = await self._starts.answer(worker, report)
            if not answer.proceed:
                log.info("%s: not started: %s", worker.key, answer.reason)
                return answer
        await self._started(worker, report, resumes=answer.resume)
        if report.event == "ready":
            self._context.bells.workspace.ring()
        return answer

    async def _started(self, worker: Worker, report: JobReport, *, resumes: bool) -> None:
        context, now = self._context, self._context.clock()
        after = await context.changes.apply(
            worker.key,
            lambda worker, _: node_evidence.observe_start(
                worker,
                report.hostname,
                report.slurm_job_id,
                now,
                restart_count=report.restart_count,
            ),
            source="node",
        )
        if after.restart_count > worker.restart_count:
            self.forget(worker.key)  # what the relay lets through depends on it
            if after.kind is WorkerKind.RUN_WORKER:
                await context.store.run(
                    lambda db: run_log.restarted(db, after, resumes=resumes, now=context.wall())
                )

    async def _duplicate(self, worker: Worker, report: JobReport) -> None:
        """A job that found the claim taken: it ends nothing, and tells whose the claim is."""
        log.info(
            "%s: job %s is a duplicate, job %s has the claim",
            worker.key,
            report.slurm_job_id,
            report.claimed_by.slurm_job_id if report.claimed_by else "another",
        )
        if report.claimed_by is not None:
            claimant = report.claimed_by.slurm_job_id
            await self._context.changes.apply(
                worker.key,
                lambda worker, _: node_evidence.observe_claim(worker, claimant),
                source="node",
            )

    async def _exited(self, worker: Worker, report: JobReport) -> None:
        context, now = self._context, self._context.clock()
        record = ExitRecord.parse(report.exit or {})
        if record is None:
            log.warning("%s: its last report holds no exit record", worker.key)
            return
        was_killed = record.signal == signal.SIGKILL and not worker.placement.is_shared
        was_ended = record.outcome == "terminated" or was_killed
        if was_ended and worker.terminate_at is None and not record.is_out_of_time:
            # Why it was ended (memory, preemption, an administrator) only the scheduler knows, and
            # that only when the node program has gone.
            await context.changes.apply(
                worker.key, lambda worker, _: node_evidence.observe_leaving(worker), source="node"
            )
            context.bells.watch.ring()
            return
        if not record.ran and await self._lives_elsewhere(worker, record):
            log.info("%s: it was not started on %s as well", worker.key, record.hostname)
            return

        def observe(worker: Worker, own: Sequence[Job]) -> Change:
            others = any(not job.is_over and job.job_id != report.slurm_job_id for job in own)
            return node_evidence.observe_exit(worker, record, now, others_live=others)

        # After this report the child writes nothing more: it has ended before.
        await context.changes.apply(worker.key, observe, source="node")
        self.forget(worker.key)

    async def _lives_elsewhere(self, worker: Worker, record: ExitRecord) -> bool:
        """Whether a member of a pool lives on another node than the one that could not start it."""
        if worker.phase is not Phase.RUNNING or worker.pack_key is None:
            return False
        host = await self._context.store.run(lambda db: pools.host_of(db, worker))
        return host not in {"", record.hostname}


def _refusal(worker: Worker, report: JobReport) -> str | None:
    """Say why a report is not one of the worker's job as it is now, if so."""
    if report.event == "duplicate":
        return "another job has this work"
    if is_of_another(worker, report):
        return f"job {worker.job_id} has this work already"
    if report.restart_count < worker.restart_count:
        return "a later start of this job took its place"
    return None


def _newest_attempt(db: Database, key: str) -> Worker | None:
    """Return a worker unless a later one goes on with its run, or its step."""
    worker = workers.find(db, key)
    if worker is None or worker.run_id is None:
        return worker
    newest = (
        workers.of_run(db, worker.run_id)
        if worker.step is None
        else steps.find(db, worker.run_id, worker.step, worker.step_attempt)
    )
    return worker if newest is None or newest.key == key else None


def _known_of(db: Database, key: str) -> tuple[Worker | None, RunToLaunch | None]:
    worker = _newest_attempt(db, key)
    run_id = worker.run_id if worker is not None else None
    return worker, launches.find(db, run_id) if run_id is not None else None


def _identity(worker: Worker, launch: RunToLaunch | None, access: Access) -> JobIdentity:
    tags = launch.tags if launch is not None else {}
    is_run = worker.kind.is_of_run
    reach = access.run_workers_read if is_run else access.code_servers_read
    kind: Literal["run_worker", "code_server", "pool"] = "run_worker" if is_run else "code_server"
    return JobIdentity(
        key=worker.key,
        kind="pool" if worker.kind is WorkerKind.POOL else kind,
        deployment=worker.deployment,
        run_id=worker.run_id,
        location=worker.location or "",
        restart_count=worker.restart_count,
        access=Permissions(reach == "deployment", frozenset(access.allow or ())),
        started_from=frozenset(tags[name] for name in _STARTED_FROM if name in tags),
        backfill_id=tags.get(_BACKFILL),
        is_over=worker.phase.is_final,
    )
