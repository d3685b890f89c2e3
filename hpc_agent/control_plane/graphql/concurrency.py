"""Concurrency pools: limits, and the slots that steps claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from ariadne import ObjectType
from dagster import DagsterInvalidInvocationError
from dagster._core.instance.config import PoolConfig
from dagster._core.storage.event_log.base import PoolLimit
from dagster._utils.concurrency import ConcurrencyClaimStatus, ConcurrencyKeyInfo, PendingStepInfo
from graphql import GraphQLResolveInfo

from hpc_agent.control_plane.graphql.event_logs import event_log_mutations, event_logs, storage

pool_config = ObjectType("PoolConfig")
pending_step = ObjectType("PendingStep")
claim_status = ObjectType("ConcurrencyClaimStatus")
bindables = [pool_config, pending_step, claim_status]


@event_logs.field("getConcurrencyKeys")
def get_concurrency_keys(_: object, info: GraphQLResolveInfo) -> list[str]:
    return sorted(storage(info).get_concurrency_keys())


@event_logs.field("getPoolLimits")
def get_pool_limits(_: object, info: GraphQLResolveInfo) -> Sequence[PoolLimit]:
    return storage(info).get_pool_limits()


@event_logs.field("getPoolConfig")
def get_pool_config(_: object, info: GraphQLResolveInfo) -> PoolConfig:
    return storage(info).get_pool_config()


@pool_config.field("poolGranularity")
def pool_granularity(config: PoolConfig, _info: GraphQLResolveInfo) -> str | None:
    return config.pool_granularity.value if config.pool_granularity else None


@event_logs.field("getConcurrencyInfo")
def get_concurrency_info(
    _: object, info: GraphQLResolveInfo, concurrency_key: str
) -> ConcurrencyKeyInfo:
    return storage(info).get_concurrency_info(concurrency_key)


@event_logs.field("getCheckConcurrencyClaim")
def check_concurrency_claim(
    _: object, info: GraphQLResolveInfo, concurrency_key: str, run_id: str, step_key: str
) -> ConcurrencyClaimStatus:
    return storage(info).check_concurrency_claim(concurrency_key, run_id, step_key)


@event_log_mutations.field("ClaimConcurrencySlot")
def claim_concurrency_slot(
    _: object,
    info: GraphQLResolveInfo,
    concurrency_key: str,
    run_id: str,
    step_key: str,
    priority: int,
) -> dict[str, ConcurrencyClaimStatus]:
    claimed = storage(info).claim_concurrency_slot(concurrency_key, run_id, step_key, priority)
    return {"status": claimed}


@claim_status.field("slotStatus")
def slot_status(status: ConcurrencyClaimStatus, _info: GraphQLResolveInfo) -> str:
    return status.slot_status.value


@claim_status.field("assignedTimestamp")
@pending_step.field("assignedTimestamp")
def assigned_timestamp(
    value: ConcurrencyClaimStatus | PendingStepInfo, _info: GraphQLResolveInfo
) -> float | None:
    return _seconds(value.assigned_timestamp)


@claim_status.field("enqueuedTimestamp")
@pending_step.field("enqueuedTimestamp")
def enqueued_timestamp(
    value: ConcurrencyClaimStatus | PendingStepInfo, _info: GraphQLResolveInfo
) -> float | None:
    return _seconds(value.enqueued_timestamp)


@event_log_mutations.field("FreeConcurrencySlotsForRun")
def free_concurrency_slots_for_run(
    _: object, info: GraphQLResolveInfo, run_id: str
) -> dict[str, Any]:
    storage(info).free_concurrency_slots_for_run(run_id)
    return {"success": True}


@event_log_mutations.field("FreeConcurrencySlotForStep")
def free_concurrency_slot_for_step(
    _: object, info: GraphQLResolveInfo, run_id: str, step_key: str
) -> dict[str, Any]:
    storage(info).free_concurrency_slot_for_step(run_id, step_key)
    return {"success": True}


@event_log_mutations.field("SetConcurrencySlots")
def set_concurrency_slots(
    _: object, info: GraphQLResolveInfo, concurrency_key: str, num: int
) -> dict[str, Any]:
    return _result(lambda: storage(info).set_concurrency_slots(concurrency_key, num))


@event_log_mutations.field("DeleteConcurrencyLimit")
def delete_concurrency_limit(
    _: object, info: GraphQLResolveInfo, concurrency_key: str
) -> dict[str, Any]:
    return _result(lambda: storage(info).delete_concurrency_limit(concurrency_key))


@event_log_mutations.field("InitializeConcurrencyLimit")
def initialize_concurrency_limit(
    _: object, info: GraphQLResolveInfo, concurrency_key: str
) -> dict[str, Any]:
    return _result(lambda: storage(info).initialize_concurrency_limit_to_default(concurrency_key))


def _result(change: Callable[[], bool | None]) -> dict[str, Any]:
    """Answer success, or the one error that the client tells apart."""
    try:
        success = change()
    except DagsterInvalidInvocationError as error:
        described = {"message": str(error), "class_name": type(error).__name__, "stack": []}
        return {"success": False, "error": described}
    return {"success": success is not False}


def _seconds(time: datetime | None) -> float | None:
    return time.timestamp() if time else None
