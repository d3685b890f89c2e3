"""What the steps of a run need: asked of the code server, whose plan of the run has their tags."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from weakref import WeakKeyDictionary

from hpc_agent.code_servers.calls import Calls
from hpc_agent.dagster_plus.requests import RunToLaunch, with_instance_ref
from hpc_agent.dagster_plus.serdes import Packed, dumps, is_error
from hpc_agent.errors import CodeServerError
from hpc_agent.grpc import client as grpc
from hpc_agent.grpc.client import CodeServerClient
from hpc_agent.jobs.options import TAG_PREFIX

_WAIT_SECONDS = 20.0
_CALL_SECONDS = 30.0
_REMEMBERED = 1000

_Steps = tuple[tuple[str, Mapping[str, str]], ...]


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
        # Of two runs of one job, the same steps are executed whatever their configuration.
        alike = dumps({**selection, "run_config": None})
        known = self._known.setdefault(server, OrderedDict())
        if alike not in known:
            asked = with_instance_ref(selection, instance)
            call = server.call(grpc.EXECUTION_PLAN, asked, deadline_seconds=_CALL_SECONDS)
            known[alike] = _steps_of(await call)
            if len(known) > _REMEMBERED:
                known.popitem(last=False)
        return known[alike]


def _steps_of(answer: str) -> _Steps:
    """Return the steps that are executed, where any asks for something. Raises CodeServerError."""
    content = json.loads(answer)
    if is_error(answer) or not isinstance(content.get("steps"), list):
        error = content.get("error") or content
        raise CodeServerError(f"its plan cannot be made: {str(error.get('message'))[:500]}")
    chosen = set(content.get("step_keys_to_execute") or ())
    steps = tuple(
        (str(step["key"]), _ours(step.get("tags")))
        for step in content["steps"]
        if not chosen or step["key"] in chosen
    )
    return steps if any(tags for _, tags in steps) else ()


def _ours(tags: object) -> dict[str, str]:
    content = tags if isinstance(tags, dict) else {}
    return {str(name): str(value) for name, value in content.items() if name.startswith(TAG_PREFIX)}
