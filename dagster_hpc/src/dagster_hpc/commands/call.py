"""One call of user code that runs a command: in as many jobs as it takes until it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
from dagster._core.pipes.client import PipesClientCompletedInvocation
from dagster._core.pipes.context import build_external_execution_context_data

from dagster_hpc.commands.checkpoint import VARIABLE, Checkpoint
from dagster_hpc.commands.command_job import Command, CommandJob
from dagster_hpc.commands.earlier import end_earlier
from dagster_hpc.commands.messages import Reported, subject_of
from dagster_hpc.commands.stored import (
    MARKER,
    NO_EVENT,
    OpContext,
    Result,
    Stored,
    as_event,
    stand_in,
)
from dagster_hpc.jobs import JobName, Launcher


class Call:
    """A command that an op waits for; ``name`` is what its jobs are found again by."""

    def __init__(
        self,
        context: dg.OpExecutionContext,
        launcher: Launcher,
        name: JobName,
        *,
        extras: Mapping[str, Any] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._op = context
        self._launcher = launcher
        self._name = name
        self._checkpoint = checkpoint
        self._reported = Reported(context)
        self._stored = Stored(self._op)
        self._job: CommandJob | None = None
        self._given = 0
        self._began = 0.0
        self.session = dg.PipesSession(
            context_data=build_external_execution_context_data(context, extras),
            message_handler=self._reported,
            context_injector_params={},
            message_reader_params={},
            context=context,
        )

    def run(self, command: Command) -> Iterator[Result]:
        """Run the command to its end; yield results as they are reported.

        Raises Failure when it does not succeed, and JobError when nobody can run it.
        """
        limit = 0
        if self._checkpoint is not None:
            limit = self._checkpoint.resubmissions
            directory = str(self._checkpoint.path(self._op))
            environment = {VARIABLE: directory, **command.environment}
            tags = self._checkpoint.tags(command.tags)
            command = replace(command, environment=environment, tags=tags)
        end_earlier(self._op, self._launcher, self._name)
        for number in range(limit + 1):
            job = self._job_of(number)
            for _ in job.follow(command, self.session.context_data):
                yield from self._news()
            if number == 0:
                self._began = job.exchange.prepared_at
            if job.status.has_succeeded:
                return
            if self._checkpoint is None or job.status.exit_code != self._checkpoint.exit_code:
                raise job.failure()
            self._op.log.info("it has asked to go on in another job")
        raise job.failure(f"asked to go on in another job, but {limit} more were all it may have")

    def rest(self) -> Iterator[Result]:
        """Yield what stands for the assets of the step of which the command has said nothing."""
        told = {key for key in self._reported.results if isinstance(key, dg.AssetKey)}
        if self._op.has_assets_def:
            for key in self._op.selected_asset_keys - told:
                yield self._settled(dg.MaterializeResult(asset_key=key))

    def completed(self) -> Completed:
        """Return what was reported, once the command has come to its end."""
        return Completed(self.session, self._settled, began=self._began)

    def _news(self) -> Iterator[Result]:
        results = list(self._reported.results.values())[self._given :]
        for result, _ in results:
            self._given += 1
            yield from self._told(result)

    def _told(self, result: dg.PipesExecutionResult) -> Iterator[Result]:
        """Yield what Dagster is to be told, unless the event log has it."""
        is_stored = self._stored.has(self._marker(result))
        if not self._op.has_assets_def:
            if not is_stored:
                yield as_event(self._settled(result))
        elif isinstance(result, dg.AssetCheckResult) and is_stored:
            yield from stand_in(self._op, result)
        else:
            yield self._settled(result)

    def _settled(self, result: dg.PipesExecutionResult) -> Any:
        """Return a result with what is known of its job, marked; no event if there is one."""
        marker = self._marker(result)
        metadata = {**(result.metadata or {}), **self._metadata(), MARKER: marker}
        if isinstance(result, dg.MaterializeResult) and self._stored.has(marker):
            metadata |= NO_EVENT
        return result._replace(metadata=metadata)

    def _marker(self, result: dg.PipesExecutionResult) -> str:
        _, origin = self._reported.results.get(subject_of(result), (None, f"{self._name.name}:end"))
        return f"{origin}/{self._name.attempt}"

    def _metadata(self) -> dict[str, Any]:
        if self._job is None:
            return {}
        told = {"job_id": self._job.status.job_id, "nodes": self._job.status.nodes}
        return {label: value for label, value in told.items() if value}

    def _job_of(self, number: int) -> CommandJob:
        suffix = f".again-{number}" if number else ""
        name = JobName(self._name.name + suffix, self._name.attempt)
        job = CommandJob(
            self._op, self._launcher, name, reported=self._reported, stored=self._stored
        )
        self._job = job
        return job


class Completed(PipesClientCompletedInvocation):
    """A command that has succeeded, and its results.

    ``began`` is a time before its first job's start, by the clock of the shared file system.
    """

    def __init__(
        self, session: dg.PipesSession, settled: Callable[..., Any], *, began: float
    ) -> None:
        super().__init__(session)
        self.began = began
        self._settled = settled

    def get_results(
        self, *, implicit_materializations: bool = True
    ) -> Sequence[dg.PipesExecutionResult]:
        """Return what was reported, and a result for each other asset of the step."""
        results = super().get_results(implicit_materializations=implicit_materializations)
        return [self._settled(each) for each in results]


def op_context(context: OpContext) -> dg.OpExecutionContext:
    """Return the context of the op behind that of an asset."""
    return context if isinstance(context, dg.OpExecutionContext) else context.op_execution_context
