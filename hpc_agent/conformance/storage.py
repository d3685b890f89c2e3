"""The storage contract: every public method of the stock storages has cases, or a reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dagster_cloud.storage.defs_state.storage import GraphQLDefsStateStorage
from dagster_cloud.storage.event_logs.storage import GraphQLEventLogStorage
from dagster_cloud.storage.runs.storage import GraphQLRunStorage
from dagster_cloud.storage.schedules.storage import GraphQLScheduleStorage

from hpc_agent.conformance.asset_cases import ASSET_CASES
from hpc_agent.conformance.case import StorageCase
from hpc_agent.conformance.event_cases import EVENT_CASES, LAST_CASES
from hpc_agent.conformance.promise_cases import PROMISE_CASES, PROMISES
from hpc_agent.conformance.run_cases import RUN_CASES
from hpc_agent.conformance.schedule_cases import DEFS_STATE_CASES, SCHEDULE_CASES

STORAGES: Mapping[str, type] = {
    "runs": GraphQLRunStorage,
    "events": GraphQLEventLogStorage,
    "schedules": GraphQLScheduleStorage,
    "defs_state": GraphQLDefsStateStorage,
}

# In this order: later cases see what earlier ones wrote, on both sides alike.
CASES: list[StorageCase] = [
    *RUN_CASES, *SCHEDULE_CASES, *DEFS_STATE_CASES, *ASSET_CASES, *EVENT_CASES, *PROMISE_CASES,
    *LAST_CASES,
]  # fmt: skip

_CLIENT_REFUSES = "the client itself refuses it: 'not callable from user cloud'"
_CLIENT_DECLINES = "the client itself says that its storage cannot"
_PLUMBING = "how the client is made, or the connection it holds"
_NOT_OVERRIDDEN = "a default of the base class that the client leaves as it is"

NOT_CALLED: Mapping[str, str] = {
    "runs.handle_run_event": "the client refuses it: StoreEvent does it here",
    "runs.build_missing_indexes": _CLIENT_REFUSES,
    "runs.delete_run": _CLIENT_REFUSES,
    "runs.wipe": _CLIENT_REFUSES,
    "runs.wipe_daemon_heartbeats": _CLIENT_REFUSES,
    "runs.get_backfills_count": _CLIENT_REFUSES,
    "runs.get_cursor_values": _CLIENT_REFUSES,
    "runs.set_cursor_values": _CLIENT_REFUSES,
    "events.watch": _CLIENT_REFUSES,
    "events.end_watch": _CLIENT_REFUSES,
    "events.get_freshness_state_records": _CLIENT_REFUSES,
    "events.update_asset_cached_status_data": _CLIENT_REFUSES,
    "events.get_concurrency_run_ids": _CLIENT_REFUSES,
    "events.get_asset_check_execution_history": _CLIENT_REFUSES,
    "events.get_asset_check_partition_info": _CLIENT_REFUSES,
    "events.get_logs_for_all_runs_by_log_id": "the client's base class refuses it",
    "events.get_asset_check_state": "computed from get_asset_check_partition_info, see there",
    "schedules.wipe": _CLIENT_REFUSES,
    "schedules.delete_instigator_state": _CLIENT_REFUSES,
    "schedules.get_tick": _CLIENT_REFUSES,
    "schedules.get_ticks_by_ids": _CLIENT_REFUSES,
    "schedules.get_tick_summaries": _CLIENT_REFUSES,
    "schedules.purge_ticks": _CLIENT_REFUSES,
    "schedules.add_auto_materialize_asset_evaluations": _CLIENT_REFUSES,
    "schedules.get_auto_materialize_asset_evaluations": _CLIENT_REFUSES,
    "schedules.get_auto_materialize_evaluations_for_evaluation_id": _CLIENT_REFUSES,
    "schedules.purge_asset_evaluations": _CLIENT_REFUSES,
    "schedules.upgrade": _CLIENT_REFUSES,
    "schedules.get_batch_ticks": "the client's base class refuses it",
}
"""Methods that reach no control plane, because the client raises instead; with the reason."""

LOCAL: Mapping[str, str] = {
    **{f"{storage}.{name}": _PLUMBING for storage in STORAGES for name in (
        "inst_data", "config_type", "from_config_value", "has_instance", "register_instance",
    )},
    **{f"{storage}.{name}": _NOT_OVERRIDDEN for storage in ("runs", "events", "schedules")
       for name in ("alembic_version", "dispose", "optimize_for_webserver")},
    **{f"{storage}.{name}": _NOT_OVERRIDDEN for storage in ("runs", "schedules")
       for name in ("migrate", "optimize")},
    "runs.add_snapshot": "used by `dagster debug import`, which needs the database at hand",
    "runs.has_snapshot": "used by `dagster debug import`, which needs the database at hand",
    "runs.supports_bucket_queries": _CLIENT_DECLINES,
    "runs.has_bulk_actions_table": _CLIENT_DECLINES,
    "events.agent_instance": _PLUMBING,
    "events.can_write_asset_status_cache": _CLIENT_DECLINES,
    "events.default_run_scoped_event_tailer_offset": "a number of the client's own",
    "events.get_asset_tags_to_index": _NOT_OVERRIDDEN,
    "events.get_checkpointed_asset_check_state": _NOT_OVERRIDDEN,
    "events.has_bounded_dynamic_partition_membership_query": _NOT_OVERRIDDEN,
    "events.is_run_sharded": _NOT_OVERRIDDEN,
    "events.supports_asset_checks": _NOT_OVERRIDDEN,
    "schedules.supports_auto_materialize_asset_evaluations": _NOT_OVERRIDDEN,
    "schedules.supports_batch_queries": _NOT_OVERRIDDEN,
    "defs_state.url": _PLUMBING,
    "defs_state.api_token": _PLUMBING,
    "defs_state.deployment": _PLUMBING,
    "defs_state.graphql_client": _PLUMBING,
    "defs_state.get": "the storage that a process has chosen for itself",
}  # fmt: skip
"""Methods that ask no control plane; with the reason."""

ONLY_HERE: Mapping[str, str] = {
    "events.get_materialization_count_by_partition": "OSS storages have dropped it",
    "events.get_asset_status_cache_values": "needs the definitions that an agent uploads",
}
"""Methods that a plain instance no longer has: tests compare them with facts instead."""


def methods() -> Iterator[str]:
    """Yield every public method and property of the stock storages, as ``storage.method``."""
    for storage, implementation in STORAGES.items():
        for name in dir(implementation):
            if not name.startswith("_"):
                yield f"{storage}.{name}"


def covered() -> set[str]:
    """Return the methods that have at least one case."""
    return {f"{case.storage}.{case.method}" for case in CASES}


def uncovered() -> list[str]:
    """Return the methods that neither a case nor a reason covers."""
    known = covered() | PROMISES.keys() | NOT_CALLED.keys() | LOCAL.keys() | ONLY_HERE.keys()
    return [method for method in methods() if method not in known]
