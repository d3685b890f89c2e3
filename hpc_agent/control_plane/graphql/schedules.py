"""States and ticks of schedules and sensors."""

from __future__ import annotations

from collections.abc import Sequence

from ariadne import ObjectType
from dagster import DagsterInstance
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorTick,
    TickData,
    TickStatus,
)
from dagster._core.storage.schedules.base import ScheduleStorage
from dagster_shared.serdes import serialize_value
from graphql import GraphQLResolveInfo

from hpc_agent.control_plane.graphql.context import OK, instance
from hpc_agent.control_plane.received import received
from hpc_agent.errors import ControlPlaneRefusedError

schedules = ObjectType("SchedulesQuery")
schedule_mutations = ObjectType("SchedulesMutation")
bindables = [schedules, schedule_mutations]


def storage(info: GraphQLResolveInfo) -> ScheduleStorage[DagsterInstance]:
    found = instance(info).schedule_storage
    if found is None:
        raise ControlPlaneRefusedError("this Dagster instance has no schedule storage")
    return found


@schedules.field("jobStates")
def job_states(
    _: object,
    info: GraphQLResolveInfo,
    *,
    repository_origin_id: str | None = None,
    repository_selector_id: str | None = None,
    job_type: str | None = None,
    statuses: Sequence[str] | None = None,
) -> list[str]:
    found = storage(info).all_instigator_state(
        repository_origin_id,
        repository_selector_id,
        InstigatorType(job_type) if job_type else None,
        {InstigatorStatus(status) for status in statuses} if statuses else None,
    )
    return [serialize_value(state) for state in found]


@schedules.field("jobState")
def job_state(
    _: object, info: GraphQLResolveInfo, job_origin_id: str, selector_id: str | None = None
) -> str | None:
    state = storage(info).get_instigator_state(job_origin_id, selector_id or job_origin_id)
    return serialize_value(state) if state else None


@schedules.field("jobTicks")
def job_ticks(
    _: object,
    info: GraphQLResolveInfo,
    *,
    job_origin_id: str,
    selector_id: str | None = None,
    before: float | None = None,
    after: float | None = None,
    limit: int | None = None,
    statuses: Sequence[str] | None = None,
) -> list[str]:
    ticks = storage(info).get_ticks(
        job_origin_id, selector_id or job_origin_id, before, after, limit,
        [TickStatus(status) for status in statuses] if statuses else None,
    )  # fmt: skip
    return [serialize_value(tick) for tick in ticks]


@schedule_mutations.field("addJobState")
def add_job_state(
    _: object, info: GraphQLResolveInfo, serialized_job_state: str
) -> dict[str, bool]:
    storage(info).add_instigator_state(received(serialized_job_state, InstigatorState))
    return OK


@schedule_mutations.field("updateJobState")
def update_job_state(
    _: object, info: GraphQLResolveInfo, serialized_job_state: str
) -> dict[str, bool]:
    storage(info).update_instigator_state(received(serialized_job_state, InstigatorState))
    return OK


@schedule_mutations.field("createJobTick")
def create_job_tick(
    _: object, info: GraphQLResolveInfo, serialized_job_tick_data: str
) -> dict[str, int]:
    tick = storage(info).create_tick(received(serialized_job_tick_data, TickData))
    return {"tick_id": tick.tick_id}


@schedule_mutations.field("updateJobTick")
def update_job_tick(
    _: object, info: GraphQLResolveInfo, tick_id: int, serialized_job_tick_data: str
) -> dict[str, bool]:
    data = received(serialized_job_tick_data, TickData)
    storage(info).update_tick(InstigatorTick(tick_id, data))
    return OK
