"""Requests of the control plane: what the agent must read of them; the rest passes through."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from hpc_agent.dagster_plus.serdes import Packed, dumps, enum_member, packed
from hpc_agent.errors import ControlPlaneError
from hpc_agent.inbound.json_text import loads
from hpc_agent.outgoing.text import storable_json

# The year 9999, which is as far as Python's dates go.
_LAST_SECOND = 253402300799.0

CHECK_FOR_WORKSPACE_UPDATES = "CHECK_FOR_WORKSPACE_UPDATES"
LAUNCH_RUN = "LAUNCH_RUN"
TERMINATE_RUN = "TERMINATE_RUN"
PING_LOCATION = "PING_LOCATION"
GET_EXTERNAL_EXECUTION_PLAN = "GET_EXTERNAL_EXECUTION_PLAN"
GET_SUBSET_EXTERNAL_PIPELINE_RESULT = "GET_SUBSET_EXTERNAL_PIPELINE_RESULT"
GET_EXTERNAL_PARTITION_CONFIG = "GET_EXTERNAL_PARTITION_CONFIG"
GET_EXTERNAL_PARTITION_TAGS = "GET_EXTERNAL_PARTITION_TAGS"
GET_EXTERNAL_PARTITION_NAMES = "GET_EXTERNAL_PARTITION_NAMES"
GET_EXTERNAL_PARTITION_SET_EXECUTION_PARAM_DATA = "GET_EXTERNAL_PARTITION_SET_EXECUTION_PARAM_DATA"
GET_EXTERNAL_SCHEDULE_EXECUTION_DATA = "GET_EXTERNAL_SCHEDULE_EXECUTION_DATA"
GET_EXTERNAL_SENSOR_EXECUTION_DATA = "GET_EXTERNAL_SENSOR_EXECUTION_DATA"
GET_EXTERNAL_NOTEBOOK_DATA = "GET_EXTERNAL_NOTEBOOK_DATA"
REFRESH_COMPONENT_STATE = "REFRESH_COMPONENT_STATE"

# Where the arguments of a request name their code location, by the names under which Dagster stores
# the fields (storage_field_names in dagster/_grpc/types.py).
_ORIGINS = (
    "pipeline_origin",
    "job_origin",
    "repository_origin",
    "repository_location_origin",
    "code_location_origin",
)

# Members of DagsterCloudApi that are "deprecated" there; the stock agent fails them as well.
DEPRECATED = frozenset(
    {"CHECK_RUN_HEALTH", "LAUNCH_STEP", "CHECK_STEP_HEALTH", "TERMINATE_STEP", "LOAD_REPOSITORIES"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The body of a request; ``expire_at`` is in seconds since the epoch, by the sender's clock."""

    args: Mapping[str, Any]
    expire_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunToLaunch:
    """What LAUNCH_RUN and TERMINATE_RUN say of a run.

    ``selection`` is what its plan is made of, an ExecutionPlanSnapshotArgs without instance;
    ``steps`` are the steps of that plan with their tags, once they are known.
    """

    run_id: str
    job_name: str
    location: str | None
    tags: Mapping[str, str]
    code_origin: Mapping[str, Any] | None
    status: str | None = None
    selection: Packed | None = None
    steps: Sequence[tuple[str, Mapping[str, str]]] = ()

    @property
    def executable_path(self) -> str | None:
        """The Python that the code server said it runs under."""
        repository = (self.code_origin or {}).get("repository_origin") or {}
        path = repository.get("executable_path")
        return path if isinstance(path, str) else None


class _Run(BaseModel):
    """What is read of a DagsterRun, by the names under which it is stored."""

    model_config = ConfigDict(frozen=True)

    run_id: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    pipeline_name: str | None = None
    tags: dict[str, str] | None = None
    pipeline_code_origin: dict[str, Any] | None = None
    external_pipeline_origin: Any = None
    pipeline_snapshot_id: str | None = None
    run_config: Any = None
    solid_selection: Any = None
    step_keys_to_execute: Any = None
    asset_selection: Any = None
    asset_check_selection: Any = None
    status: Any = None


class _CodePointer(BaseModel):
    working_directory: str | None = None


class _RepositoryOrigin(BaseModel):
    code_pointer: _CodePointer | None = None
    executable_path: str | None = None
    container_image: str | None = None


class _CodeOrigin(BaseModel):
    """What is read of a run's code origin; the whole of it is passed on."""

    repository_origin: _RepositoryOrigin | None = None


def opened(body: str) -> Opened:
    """Open a DagsterCloudApiRequest. Raises ControlPlaneError when it is none."""
    try:
        content = loads(storable_json(body))
        args, expire_at = content["request_args"], content.get("expire_at")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ControlPlaneError(f"a request that cannot be read: {error}") from None
    if isinstance(expire_at, int | float) and not 0 <= expire_at <= _LAST_SECOND:
        raise ControlPlaneError("a request that cannot be read: it expires at no time")
    return Opened(
        args=args if isinstance(args, dict) else {},
        expire_at=float(expire_at) if isinstance(expire_at, int | float) else None,
    )


def seconds_in(args: Mapping[str, Any], name: str) -> float | None:
    """Return a time in seconds among the arguments of a request, None for what is none."""
    given = args.get(name)
    if not isinstance(given, int | float) or not 0 <= given <= _LAST_SECOND:
        return None
    return float(given) if math.isfinite(given) else None


def run_of(args: Mapping[str, Any]) -> RunToLaunch:
    """Return the run in the arguments of LAUNCH_RUN or TERMINATE_RUN. Raises ControlPlaneError."""
    run = args.get("pipeline_run")
    if not isinstance(run, dict) or not run.get("run_id"):
        raise ControlPlaneError("a request about a run that holds no run")
    try:
        given = _Run.model_validate(run)
        if given.pipeline_code_origin is not None:
            _CodeOrigin.model_validate(given.pipeline_code_origin)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        words = "; ".join(faults)[:2000]
        raise ControlPlaneError(f"a request about a run that cannot be read: {words}") from None
    return RunToLaunch(
        run_id=given.run_id,
        job_name=given.pipeline_name or "",
        location=_location_of_origin(given.external_pipeline_origin),
        tags=given.tags or {},
        code_origin=given.pipeline_code_origin,
        status=enum_member(given.status),
        selection=_selection(given),
    )


def _selection(run: _Run) -> Packed | None:
    """Return what a run's plan is made of (ExecutionPlanSnapshotArgs, dagster/_grpc/types.py)."""
    if run.external_pipeline_origin is None or run.pipeline_snapshot_id is None:
        return None
    return packed(
        "ExecutionPlanSnapshotArgs",
        pipeline_origin=run.external_pipeline_origin,
        solid_selection=run.solid_selection or [],
        run_config=run.run_config or {},
        step_keys_to_execute=run.step_keys_to_execute,
        pipeline_snapshot_id=run.pipeline_snapshot_id,
        known_state=None,
        instance_ref=None,
        asset_selection=run.asset_selection,
        asset_check_selection=run.asset_check_selection,
        mode="default",
    )


def location_of(args: Mapping[str, Any]) -> str | None:
    """Return the code location that a request is about, wherever its arguments name it."""
    name = args.get("location_name")
    if isinstance(name, str):
        return name
    for field in _ORIGINS:
        found = _location_of_origin(args.get(field))
        if found is not None:
            return found
    return None


def with_instance_ref(args: Mapping[str, Any], instance_ref: Mapping[str, Any]) -> str:
    """Return the arguments as a code server takes them, with the instance filled in."""
    return dumps({**args, "instance_ref": instance_ref})


def _location_of_origin(origin: object) -> str | None:
    """Walk down job origin → repository origin → location origin to the location's name."""
    while isinstance(origin, dict):
        name = origin.get("location_name")
        if isinstance(name, str):
            return name
        origin = (
            origin.get("external_repository_origin")
            or origin.get("repository_origin")
            or origin.get("repository_location_origin")
            or origin.get("code_location_origin")
        )
    return None
