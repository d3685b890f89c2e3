"""What the steps of a run need: asked of the code server, whose plan of the run has their tags."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated
from weakref import WeakKeyDictionary

from pydantic import BaseModel, BeforeValidator, ValidationError

from hpc_agent.code_servers.calls import Calls
from hpc_agent.dagster_plus.requests import RunToLaunch, with_instance_ref
from hpc_agent.dagster_plus.serdes import Packed, dumps
from hpc_agent.errors import CodeServerError
from hpc_agent.grpc import client as grpc
from hpc_agent.grpc.client import CodeServerClient
from hpc_agent.jobs.options import TAG_PREFIX

# Of the library for user code: where a step runs, and with which others (docs/steps.md).
PLACE_TAG = TAG_PREFIX + "step"
GROUP_TAG = TAG_PREFIX + "group"
STEP_TAGS = frozenset({PLACE_TAG, GROUP_TAG})
# The executor that gives steps jobs of their own, and the places that are the run's own job.
_STEP_EXECUTOR = "slurm"
_IN_THE_RUN = frozenset({"process", "in_process", "srun"})
# Of the executor's configuration: where steps run that do not say it.
_DEFAULT_PLACE = ("execution", "config", "default")
_AUTO = "auto"

_WAIT_SECONDS = 20.0
_CALL_SECONDS = 30.0
_REMEMBERED = 1000
_LONGEST_ERROR = 500

_Steps = tuple[tuple[str, Mapping[str, str]], ...]


class _Step(BaseModel):
    key: str
    tags: Annotated[dict[str, str], BeforeValidator(lambda tags: tags or {})] = {}


class _Error(BaseModel):
    message: str = ""


class _Plan(BaseModel):
    """What is read of an ExecutionPlanSnapshot, or of the error in its place."""

    steps: list[_Step] | None = None
    executor_name: str | None = None
    step_keys_to_execute: list[str] | None = None
    error: _Error | None = None
    message: str = ""


class StepNeeds:
    """Finds the tags of the steps that a run executes; runs that are alike ask once."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._known: WeakKeyDictionary[CodeServerClient, OrderedDict[str, _Steps]] = (
            WeakKeyDictionary()
        )

    async def added_to(
        self, run: RunToLaunch, *, deployment: str, is_branch: bool, instance: Packed
    ) -> tuple[RunToLaunch, str]:
        """Return a run with its steps, or without and the reason why they are not known."""
        if run.selection is None or run.location is None:
            return run, ""
        place = deployment, run.location
        try:
            async with self._calls.use(
                place, is_branch=is_branch, wait_seconds=_WAIT_SECONDS
            ) as server:
                steps = await self._steps(server, run.selection, instance)
        except CodeServerError as error:
            return run, f"what its steps ask for is not known: {error}"
        return replace(run, steps=steps), ""

    async def _steps(self, server: CodeServerClient, selection: Packed, instance: Packed) -> _Steps:
        # Of two runs of one job, the same steps are executed; where, their configurations say.
        place = default_place(selection["run_config"])
        alike = dumps({**selection, "run_config": place})
        known = self._known.setdefault(server, OrderedDict())
        if alike not in known:
            asked = with_instance_ref(selection, instance)
            call = server.call(grpc.EXECUTION_PLAN, asked, deadline_seconds=_CALL_SECONDS)
            known[alike] = steps_of(await call, place)
            if len(known) > _REMEMBERED:
                known.popitem(last=False)
        return known[alike]


def default_place(run_config: object) -> str:
    """Return where the configuration of a run lets steps run whose tags do not say it."""
    value = run_config
    for name in _DEFAULT_PLACE:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else _AUTO


def steps_of(answer: str, default: str = _AUTO) -> _Steps:
    """Return the steps that the run's own job executes, where any asks for something.

    With ``slurm_executor`` a step that asks for something gets a job of its own, unless a tag of
    its own or of its group says that it runs in the run's, or the ``default`` of the run does.
    Raises CodeServerError.
    """
    try:
        plan = _Plan.model_validate_json(answer)
    except ValidationError:
        raise CodeServerError("its plan cannot be read") from None
    if plan.steps is None:
        error = plan.error or _Error(message=plan.message)
        raise CodeServerError(f"its plan cannot be made: {error.message[:_LONGEST_ERROR]}")
    chosen = [
        step
        for step in plan.steps
        if not plan.step_keys_to_execute or step.key in plan.step_keys_to_execute
    ]
    if plan.executor_name == _STEP_EXECUTOR:
        chosen = _in_the_run(chosen, default)
    steps = tuple(
        (step.key, {tag: text for tag, text in step.tags.items() if tag.startswith(TAG_PREFIX)})
        for step in chosen
    )
    return steps if any(tags for _, tags in steps) else ()


def _in_the_run(steps: Sequence[_Step], default: str) -> list[_Step]:
    """Return the steps that get no job of their own; a group of steps has one place."""
    keys = {step.key for step in steps if step.tags.get(PLACE_TAG, default) in _IN_THE_RUN}
    groups = {step.tags.get(GROUP_TAG) for step in steps if step.key in keys} - {None}
    return [step for step in steps if step.key in keys or step.tags.get(GROUP_TAG) in groups]
