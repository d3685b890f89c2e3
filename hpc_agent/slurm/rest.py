"""The Scheduler on slurmrestd, Slurm's REST API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from hpc_agent.errors import (
    JobNotFoundError,
    SchedulerError,
    SchedulerUnavailableError,
    SchedulerUnreadableError,
    SubmitAmbiguousError,
    SubmitRefusedError,
)
from hpc_agent.slurm import rest_jobs, rest_submission
from hpc_agent.slurm.diagnosis import Meaning, meaning_of
from hpc_agent.slurm.observation import OnCall, nobody
from hpc_agent.slurm.partition_facts import Association, PartitionFacts
from hpc_agent.slurm.rate import TokenBucket
from hpc_agent.slurm.rest_client import Answer, AnswerLostError, RestClient, Target, unavailable
from hpc_agent.slurm.rest_partitions import association
from hpc_agent.slurm.rest_token import Token
from hpc_agent.slurm.rest_values import NOT_AS_DOCUMENTED, number, words
from hpc_agent.slurm.rest_versions import DIALECTS, Dialect, is_up
from hpc_agent.slurm.said_once import SaidOnce
from hpc_agent.slurm.scheduler import (
    JobRecord,
    Look,
    NodeInfo,
    PartitionInfo,
    Usage,
    array_id,
    cancel_each,
    found_in,
    is_called,
)

logger = logging.getLogger(__name__)

_Read = TypeVar("_Read")

# A request line has room for some thousands of characters.
_JOBS_PER_QUERY = 250
# The default of MaxArraySize (slurm.conf(5)). Slurm refuses a larger array as a whole where less
# is allowed, and then the agent submits one by one.
_DEFAULT_MAX_ARRAY_SIZE = 1001
# 22.05 says so of a query that went well and has no result (api.c of its dbv0.0.38).
_NOTHING_FOUND = "Nothing found with query"
_GONE = frozenset({Meaning.JOB_UNKNOWN, Meaning.JOB_ENDED})


def slurm_by_rest(
    target: Target,
    token: Token | None,
    *,
    burst: int = 30,
    commands_per_second: float = 2.0,
    query_timeout_seconds: float = 60.0,
    versions: Sequence[str] = tuple(DIALECTS),
    on_call: OnCall = nobody,
) -> SlurmRest:
    """Return a scheduler whose requests are all within one rate limit; ``close`` it in the end.

    ``versions`` of the API may be used, the first one that slurmrestd has. Raises ConfigError for
    a CA file that cannot be read.
    """
    client = RestClient(
        target,
        token,
        versions=tuple(versions),
        bucket=TokenBucket(burst=burst, per_second=commands_per_second),
        timeout_seconds=query_timeout_seconds,
        on_call=on_call,
    )
    return SlurmRest(client)


class SlurmRest:
    """Submits, watches and cancels jobs by slurmrestd."""

    def __init__(self, client: RestClient, *, submit_timeout_seconds: float = 150.0) -> None:
        """Set the deadline of a submission, as long as that of sbatch."""
        self._client = client
        self._submit_timeout = submit_timeout_seconds
        self._max_array_size: int | None = None
        self._has_told_of_warnings = False
        self._said = SaidOnce()

    async def close(self) -> None:
        """Give back what is open."""
        await self._client.close()

    @property
    def name(self) -> str:
        """Return ``slurm``."""
        return "slurm"

    async def version(self) -> str:
        """Return for example ``slurm 24.11.5``."""
        content = await self._get("/ping/")
        meta = content.get("meta") or {}
        release = (meta.get("slurm") or meta.get("Slurm") or {}).get("release")
        return f"slurm {release}" if release else "slurm"

    async def submit(
        self, script: Path, *, name: str, comment: str, exclude: Sequence[str] = ()
    ) -> str:
        """Post the script with its options; see Scheduler.submit for the errors."""
        return await self._submit(script, name=name, comment=comment, exclude=exclude)

    async def max_array_size(self) -> int:
        """Return what slurm.conf says where the API has it (v0.0.45), else Slurm's default."""
        if self._max_array_size is None:
            path = (await self._dialect()).configuration
            size = None if path is None else max_array_size_in(await self._get(path))
            self._max_array_size = _DEFAULT_MAX_ARRAY_SIZE if size is None else size
        return self._max_array_size

    async def submit_array(
        self, script: Path, *, name: str, comment: str, size: int, exclude: Sequence[str] = ()
    ) -> str:
        """Post the script once for all tasks; see Scheduler.submit_array."""
        return await self._submit(
            script, name=name, comment=comment, exclude=exclude, array_size=size
        )

    async def queue(self) -> Look:
        """Return this user's jobs in the controller, also those it has not yet purged.

        slurmrestd sends the jobs of all users.
        """
        user = await self._client.user()
        return self._noted(rest_jobs.of_queue(_entries(await self._get("/jobs/")), user=user))

    async def history(self, job_ids: Iterable[str], *, since: datetime) -> Look:
        """Return accounting records; none on a cluster without accounting.

        Tasks are asked for by their array, as sacct is.
        """
        wanted = set(job_ids)
        look = self._noted(rest_jobs.of_accounting(await self._accounted(wanted, since)))
        return look.only(lambda job: job.job_id in wanted)

    async def usage(self, job_ids: Iterable[str], *, since: datetime) -> Mapping[str, Usage]:
        """Return what jobs have used, by the accounting of their steps."""
        wanted = set(job_ids)
        used = rest_jobs.usage_of(await self._accounted(wanted, since))
        return {job_id: usage for job_id, usage in used.items() if job_id in wanted}

    async def show(self, job_id: str) -> JobRecord:
        """Return one job. Raises JobNotFoundError when the controller knows none.

        22.05 says "Unable to find" as well when no controller answers, so that the list of all
        jobs decides.
        """
        answer = await self._ask("GET", f"/job/{array_id(job_id)}")
        if not answer.succeeded and meaning_of(answer.error) is not Meaning.JOB_UNKNOWN:
            if "Unable to find" not in answer.error:
                raise unavailable(answer)
            answer = await self._ask("GET", "/jobs/")
            if not answer.succeeded:
                raise unavailable(answer)
        look = rest_jobs.of_controller(_entries(answer.content))
        for record in look.records:
            if record.job_id == job_id:
                return record
        for record in look.records:  # an array's own id: the first of its tasks
            if array_id(record.job_id) == job_id:
                return replace(record, job_id=job_id)
        if not look.is_complete:
            raise SchedulerUnreadableError(
                f"slurmrestd: job {job_id} cannot be read: {'; '.join(look.unreadable)}"
            )
        raise JobNotFoundError(f"slurmrestd: the controller knows no job {job_id}")

    async def find(self, key: str, *, since: datetime) -> Look:
        """Return the jobs that are called so, of the queue and of accounting."""
        queued = (await self.queue()).only(lambda job: is_called(job, key))
        try:
            accounted = rest_jobs.of_accounting(await self._accounted(None, since))
        except SchedulerUnavailableError as error:
            return found_in(queued, error)
        return found_in(queued, self._noted(accounted).only(lambda job: is_called(job, key)))

    async def cancel(self, job_id: str, *, name: str | None = None) -> None:
        """End the job; one that is unknown or has ended needs nothing.

        What its name is, is asked before: an order takes no name.
        """
        if name is not None:
            try:
                if (await self.show(job_id)).name != name:
                    return
            except JobNotFoundError:
                return
        answer = await self._ask("DELETE", f"/job/{job_id}")
        if not answer.succeeded and meaning_of(answer.error) not in _GONE:
            raise unavailable(answer)

    async def cancel_all(self, names: Mapping[str, str]) -> None:
        """End the jobs one by one."""
        await cancel_each(self, names)

    async def signal(self, job_id: str, signal: str) -> None:
        """Signal the batch script. Raises JobNotFoundError when there is no such job that runs.

        Raises SchedulerError where the API can only signal all processes of a job (22.05).
        """
        if not (await self._dialect()).signals_batch:
            await self._refuse_to_signal(job_id)
        query = {"signal": signal, "flags": "BATCH_JOB"}
        answer = await self._ask("DELETE", f"/job/{job_id}", query=query)
        if answer.succeeded:
            return
        if meaning_of(answer.error) in _GONE:
            raise JobNotFoundError(f"slurmrestd: {answer.error} (job {job_id})")
        raise unavailable(answer)

    async def partitions(self) -> Sequence[PartitionInfo]:
        """Return the partitions, with the number of their nodes in each state.

        None is the default one where the API does not tell (v0.0.40 to v0.0.44).
        """
        dialect = await self._dialect()
        listed = _list(await self._get("/partitions/"), "partitions")
        nodes = await self.nodes()
        found = [_read(dialect.partition, content) for content in listed]
        return [_with_states(each, nodes) for each in found]

    async def nodes(self) -> Sequence[NodeInfo]:
        """Return the nodes."""
        dialect = await self._dialect()
        listed = _list(await self._get("/nodes/"), "nodes")
        return [_read(dialect.node, content) for content in listed]

    async def partition_facts(self) -> PartitionFacts:
        """Return what decides which partition takes a job; the groups of its user are not known."""
        dialect, user = await self._dialect(), await self._client.user()
        listed = _list(await self._get("/partitions/"), "partitions")
        return PartitionFacts(
            user=user,
            partitions=[_read(dialect.limits, content) for content in listed],
            nodes=await self.nodes(),
            associations=await self._associations(user),
        )

    async def healthy(self) -> bool:
        """Whether a controller answers; no answer is False, not an error."""
        try:
            content = await self._get("/ping/")
        except SchedulerUnavailableError as error:
            logger.info("Slurm does not answer: %s", error)
            return False
        return any(is_up(ping) for ping in _list(content, "pings"))

    async def _submit(
        self,
        script: Path,
        *,
        name: str,
        comment: str,
        exclude: Sequence[str],
        array_size: int | None = None,
    ) -> str:
        try:
            content = await asyncio.to_thread(script.read_text)
        except (OSError, UnicodeDecodeError) as error:
            raise SubmitRefusedError(f"Unable to open file {script}: {error}") from None
        dialect = await self._dialect()
        if not dialect.signals_batch and not self._has_told_of_warnings:
            self._has_told_of_warnings = True
            logger.warning(
                "slurmrestd of Slurm 22.05 cannot warn jobs before their time limit"
                " (signal B:USR1): runs that reach it are ended by SIGTERM alone"
            )
        body = rest_submission.body(
            content,
            dialect,
            directory=script.parent,
            name=name,
            comment=comment,
            exclude=exclude,
            array_size=array_size,
        )
        try:
            answer = await self._client.call(
                "POST", "/job/submit", content=body, timeout_seconds=self._submit_timeout
            )
        except AnswerLostError as error:
            raise SubmitAmbiguousError(f"{error}; a job may exist") from error
        return rest_submission.job_id_in(answer)

    async def _refuse_to_signal(self, job_id: str) -> None:
        if (await self.show(job_id)).state.is_final:
            raise JobNotFoundError(f"job {job_id} has ended")
        version = (await self._client.api()).version
        raise SchedulerError(
            f"job {job_id} is not signalled: {version} of slurmrestd's API can signal all "
            "processes of a job only, not its batch script alone"
        )

    async def _accounted(self, job_ids: Iterable[str] | None, since: datetime) -> list[Any]:
        """Return the accounting records of these jobs, or of all of this user."""
        if not (await self._client.api()).has_accounting:
            return []
        if job_ids is None:
            user = await self._client.user()
            return await self._accounting_query({}, since, user=user)
        arrays = sorted({array_id(job_id) for job_id in job_ids})
        found: list[Any] = []
        for first in range(0, len(arrays), _JOBS_PER_QUERY):
            steps = ",".join(arrays[first : first + _JOBS_PER_QUERY])
            found += await self._accounting_query({"step": steps}, since)
        return found

    async def _accounting_query(
        self, query: Mapping[str, str], since: datetime, *, user: str | None = None
    ) -> list[Any]:
        dialect = await self._dialect()
        start = f"uts{since.astimezone(UTC).timestamp():.0f}"
        answer = await self._ask(
            "GET",
            "/jobs/",
            service="slurmdb",
            query={"start_time": start, **dialect.history, **query},
        )
        if meaning_of(answer.error) is Meaning.NO_ACCOUNTING or _NOTHING_FOUND in answer.error:
            return []
        if not answer.succeeded:
            raise unavailable(answer)
        jobs = _entries(answer.content)
        return jobs if user is None else [job for job in jobs if _is_of(job, user)]

    async def _associations(self, user: str) -> list[Association]:
        """Return what a user's accounts may use; nothing without accounting."""
        if not (await self._client.api()).has_accounting:
            return []
        answer = await self._ask("GET", "/associations/", service="slurmdb", query={"user": user})
        if meaning_of(answer.error) is Meaning.NO_ACCOUNTING or _NOTHING_FOUND in answer.error:
            return []
        if not answer.succeeded:
            raise unavailable(answer)
        listed = _list(answer.content, "associations")
        return [_read(association, each) for each in listed if each.get("user") == user]

    def _noted(self, look: Look) -> Look:
        self._said.unreadable("slurmrestd", look.unreadable)
        return look

    async def _dialect(self) -> Dialect:
        return DIALECTS[(await self._client.api()).version]

    async def _get(self, path: str) -> Mapping[str, Any]:
        answer = await self._ask("GET", path)
        if not answer.succeeded:
            raise unavailable(answer)
        return answer.content

    async def _ask(self, method: str, path: str, **more: Any) -> Answer:
        """Make a call that may be made again: a lost answer has taught us nothing."""
        try:
            return await self._client.call(method, path, **more)
        except AnswerLostError as error:
            raise SchedulerUnavailableError(str(error)) from error


def _entries(content: Mapping[str, Any]) -> list[Any]:
    """Return the jobs of an answer, of whatever kind they are. Raises SchedulerUnreadableError."""
    found = content.get("jobs")
    if not isinstance(found, list):
        raise SchedulerUnreadableError("slurmrestd: the answer has no jobs")
    return found


def _is_of(job: Any, user: str) -> bool:
    """Whether a job of accounting is this user's; what is no job may be anybody's."""
    return not isinstance(job, Mapping) or not job.get("user") or job["user"] == user


def _list(content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return a list of the answer. Raises SchedulerUnreadableError for an answer without it."""
    found = content.get(key)
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise SchedulerUnreadableError(f"slurmrestd: the answer has no {key} that can be read")
    return found


def _read(read: Callable[[Mapping[str, Any]], _Read], content: Mapping[str, Any]) -> _Read:
    """Return what an entry says. Raises SchedulerUnreadableError."""
    try:
        return read(content)
    except NOT_AS_DOCUMENTED as error:
        raise SchedulerUnreadableError(f"slurmrestd: {str(content)[:200]}: {error!r}") from error


def max_array_size_in(content: Mapping[str, Any]) -> int | None:
    """Return MaxArraySize, or a smaller ``max_array_tasks``; None where slurm.conf is not sent."""
    conf = content.get("slurm_conf") or {}
    size = number(conf.get("MaxArraySize"))
    settings = (word.partition("=") for word in words(conf.get("SchedulerParameters")))
    parameters = {name: value for name, _, value in settings}
    bound = parameters.get("max_array_tasks", "")
    return min(size, int(bound)) if size is not None and bound.isdigit() else size


def _with_states(partition: PartitionInfo, nodes: Iterable[NodeInfo]) -> PartitionInfo:
    """Count the nodes of a partition as sinfo does: allocated, idle, other."""
    states = [node.state.split("+") for node in nodes if partition.name in node.partitions]
    busy = sum(state[0] in {"allocated", "mixed"} for state in states)
    idle = sum(state == ["idle"] for state in states)
    words = f"{busy} allocated, {idle} idle, {len(states) - busy - idle} other"
    return replace(partition, states=words, idle_nodes=idle)
