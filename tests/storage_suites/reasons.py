"""What the stock client makes impossible, each with the line of it that does."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Reason:
    """A line of the stock client, found anew in the installed release, and what it does."""

    file: str
    code: str
    what: str

    @property
    def line(self) -> int:
        """Where the line stands. Raises LookupError when it is gone, and the reason with it."""
        for number, text in enumerate(_read(self.file).splitlines(), 1):
            if text.strip().startswith(self.code):
                return number
        raise LookupError(f"{self.file} has no line {self.code!r}: {self.what}")

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


def _read(file: str) -> str:
    package, _, rest = file.partition("/")
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise LookupError(f"{package} is not installed")
    return (Path(found.origin).parent / rest).read_text()


_EVENTS = "dagster_cloud/storage/event_logs/storage.py"
_RUNS = "dagster_cloud/storage/runs/storage.py"

_NO_CHECK_HISTORY = Reason(
    _EVENTS, "def get_asset_check_execution_history(", "raises 'Not callable from user cloud'"
)
_PARTITIONED_CHECK = "TestEvents::test_asset_check_partitioned"

REASONS: Mapping[str, Reason] = {
    "TestEvents::test_asset_checks": _NO_CHECK_HISTORY,
    f"{_PARTITIONED_CHECK}_planned_and_evaluation[static]": _NO_CHECK_HISTORY,
    f"{_PARTITIONED_CHECK}_planned_and_evaluation[dynamic]": _NO_CHECK_HISTORY,
    f"{_PARTITIONED_CHECK}_planned_and_evaluation[time_window]": _NO_CHECK_HISTORY,
    f"{_PARTITIONED_CHECK}_with_target_materialization": _NO_CHECK_HISTORY,
    f"{_PARTITIONED_CHECK}_multiple_runs_same_partition": Reason(
        _EVENTS, "def get_asset_check_partition_info(", "raises 'Not callable from user cloud'"
    ),
    "TestEvents::test_duplicate_asset_check_planned_events": Reason(
        "dagster_cloud_cli/core/graphql_client.py",
        'raise DagsterCloudAgentServerError(f"Error in GraphQL response',
        "every error of the server is raised as this one, whose type the test does not expect",
    ),
    "TestEvents::test_get_asset_records": Reason(
        _EVENTS,
        "[asset_key.to_string() for asset_key in asset_keys] if asset_keys else []",
        "asks for no assets and for all with one request; it gets all, as `get_asset_records()` "
        "does at home",
    ),
    "TestEvents::test_get_event_records_sqlite": Reason(
        _EVENTS,
        "class GraphQLEventLogStorage(",
        "has no `index_connection`, into which the test looks",
    ),
    "TestEvents::test_get_updated_asset_status_cache_values": Reason(
        _EVENTS,
        "asset_keys = [key for key, _ in partitions_defs_by_key]",
        "leaves the partitions definitions out, and no agent has uploaded those of the test",
    ),
    "TestRuns::test_alembic_stamp": Reason(
        _RUNS, "class GraphQLRunStorage(", "has no `alembic_version`: it has no database"
    ),
    "TestRuns::test_get_runs_not_in_backfills": Reason(
        _RUNS, "check.invariant(filters.exclude_subruns is None", "refuses that filter"
    ),
    "TestRuns::test_storage_telemetry": Reason(
        _RUNS, "class GraphQLRunStorage(", "has no `get_run_storage_id`"
    ),
}
"""Tests that pass on plain storage and cannot through the client."""
