"""Any command as a Slurm job, with Dagster Pipes through files on the shared file system."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import dagster as dg
from dagster._core.definitions.resource_annotation import TreatAsResourceParam

from dagster_hpc.commands.asked import Asked, Options, command_of, is_inside, tags_of
from dagster_hpc.commands.call import Call, Completed, op_context
from dagster_hpc.commands.command_job import Command
from dagster_hpc.commands.stored import OpContext, Result
from dagster_hpc.jobs import JobName, Launcher
from dagster_hpc.launchers.launcher import launcher_of_run
from dagster_hpc.launchers.local import LocalLauncher

if TYPE_CHECKING:
    from typing_extensions import Unpack  # of typing since Python 3.11

_NOT_RETURNED = (
    "Give Dagster what the command has reported: return its get_materialize_result(), yield from "
    "its get_results(), or yield from stream() instead of run()."
)


class PipesSlurmClient(dg.PipesClient, TreatAsResourceParam):
    """Runs commands of any language as jobs, and hands on what they report while they run.

    ``options`` and ``environment`` are for every command; what a call says wins over them. Where
    there is no agent, ``DAGSTER_HPC_LAUNCHER`` says how jobs are started: as child processes, or
    by sbatch.
    """

    def __init__(
        self,
        *,
        options: Options | None = None,
        environment: Mapping[str, str] | None = None,
        launcher: Callable[[str], Launcher] = launcher_of_run,
    ) -> None:
        self._tags = tags_of(options)
        self._environment = dict(environment or {})
        self._launcher = launcher

    def run(self, *, context: OpContext, **asked: Unpack[Asked]) -> Completed:  # type: ignore[override]
        """Run a command to its end; what it has reported is in what is returned.

        Raises Failure when the command does not succeed, and JobError when nobody can run it.
        """
        op = op_context(context)
        if op.has_assets_def:
            op.set_requires_typed_event_stream(error_message=_NOT_RETURNED)
        with self._call(op, asked) as (call, command):
            for _ in call.run(command):
                pass
            return call.completed()

    def stream(self, *, context: OpContext, **asked: Unpack[Asked]) -> Iterator[Result]:
        """Run a command, and yield its results as they come: ``yield from client.stream(…)``.

        An asset of which the command says nothing is materialized at its end. Raises what ``run``
        raises.
        """
        with self._call(op_context(context), asked) as (call, command):
            yield from call.run(command)
            yield from call.rest()

    @contextmanager
    def _call(self, op: dg.OpExecutionContext, asked: Asked) -> Iterator[tuple[Call, Command]]:
        asked["environment"] = {**self._environment, **asked.get("environment", {})}
        command = command_of(op, asked, self._tags)
        launcher = LocalLauncher(op.run_id) if is_inside(asked) else self._launcher(op.run_id)
        try:
            yield (
                Call(
                    op,
                    launcher,
                    _next_name(op),
                    extras=asked.get("extras"),
                    checkpoint=asked.get("checkpoint"),
                ),
                command,
            )
        finally:
            launcher.close()


_CALLS: WeakKeyDictionary[object, int] = WeakKeyDictionary()
"""How many calls an execution of a step has made: a later process of it counts alike."""


def _next_name(context: dg.OpExecutionContext) -> JobName:
    step = context.get_step_execution_context()
    number = _CALLS.get(step, 0) + 1
    _CALLS[step] = number
    return JobName(f"{step.step.key}.command-{number}", step.previous_attempt_count)
