"""Dagster's suites, on the side that the environment names.

Not for `make test` to collect: `python -m tests.storage_suites` runs it, with the sources of
Dagster's tests on the path.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from dagster import DagsterInstance
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._utils.test.schedule_storage import TestScheduleStorage
from dagster_tests.storage_tests.utils import partition_status_cache
from dagster_tests.storage_tests.utils.compute_log_manager import TestComputeLogManager
from dagster_tests.storage_tests.utils.defs_state_storage import TestDefsStateStorage
from dagster_tests.storage_tests.utils.event_log_storage import TestEventLogStorage
from dagster_tests.storage_tests.utils.run_storage import TestRunStorage

from tests.storage_suites.equipment import Equipment, Logs, equipment
from tests.storage_suites.side import Database, Storage


@pytest.fixture(scope="session", name="equipment")
def opened_equipment() -> Iterator[Equipment]:
    with equipment() as opened:
        yield opened


@pytest.fixture(name="instance")
def emptied_instance(equipment: Equipment) -> DagsterInstance:
    equipment.empty()
    return equipment.instance


class TestEvents(TestEventLogStorage):
    __test__ = True

    @pytest.fixture(autouse=True)
    def _side(self, equipment: Equipment) -> None:
        self.side = equipment.side

    @pytest.fixture(name="instance")
    def instance(self, equipment: Equipment) -> DagsterInstance:
        equipment.empty()
        return equipment.instance

    @pytest.fixture(name="storage")
    def event_log_storage(self, instance: DagsterInstance) -> Any:
        return instance.event_log_storage

    @contextlib.contextmanager
    def mock_tags_to_index(self, storage: object) -> Iterator[None]:
        """Also in the gateway, which runs in a thread of this process."""
        with mock.patch.object(SqlEventLogStorage, "get_asset_tags_to_index", lambda _, tags: tags):
            yield

    def is_sqlite(self, storage: object) -> bool:
        return self.side.database is Database.SQLITE

    def supports_multiple_event_type_queries(self) -> bool:
        return self.side.database is not Database.SQLITE

    def can_wipe_asset_partitions(self) -> bool:
        return False

    def has_asset_partitions_table(self) -> bool:
        return self.side.storage is Storage.GATEWAY

    def can_watch(self) -> bool:
        return self.side.storage is Storage.PLAIN

    def can_write_cached_status(self) -> bool:
        return self.side.storage is Storage.PLAIN

    def supports_get_logs_for_all_runs_by_log_id(self) -> bool:
        return self.side.storage is Storage.PLAIN


class TestRuns(TestRunStorage):
    __test__ = True

    @pytest.fixture(name="instance")
    def instance(self, equipment: Equipment) -> DagsterInstance:
        equipment.empty()
        self.side = equipment.side
        return equipment.instance

    @pytest.fixture(name="storage")
    def run_storage(self, instance: DagsterInstance) -> Any:
        return instance.run_storage

    def can_delete_runs(self) -> bool:
        return self.side.storage is Storage.PLAIN

    def supports_backfill_tags_filtering_queries(self) -> bool:
        return self.side.storage is Storage.PLAIN

    def supports_backfill_job_name_filtering_queries(self) -> bool:
        return self.side.storage is Storage.PLAIN

    def supports_backfill_id_filtering_queries(self) -> bool:
        return self.side.storage is Storage.PLAIN

    def supports_backfills_count(self) -> bool:
        return self.side.storage is Storage.PLAIN

    def supports_add_historical_run(self) -> bool:
        return True


class TestSchedules(TestScheduleStorage):
    __test__ = True

    @pytest.fixture(name="storage")
    def schedule_storage(self, instance: DagsterInstance, equipment: Equipment) -> Any:
        self.side = equipment.side
        return instance.schedule_storage

    def can_delete(self) -> bool:
        return self.side.storage is Storage.PLAIN

    def can_purge(self) -> bool:
        return self.side.storage is Storage.PLAIN

    def can_store_auto_materialize_asset_evaluations(self) -> bool:
        return self.side.storage is Storage.PLAIN

    def can_get_single_tick(self) -> bool:
        return self.side.storage is Storage.PLAIN


class TestStatusCache(partition_status_cache.TestPartitionStatusCache):
    @pytest.fixture(name="instance")
    def instance(self, equipment: Equipment) -> DagsterInstance:
        equipment.empty()
        return equipment.instance


class TestDefsStates(TestDefsStateStorage):
    __test__ = True

    @pytest.fixture(name="storage")
    def state_storage(self, instance: DagsterInstance) -> Any:
        return instance.defs_state_storage


class TestComputeLogs(TestComputeLogManager):
    __test__ = True

    @pytest.fixture(name="compute_log_manager")
    def compute_log_manager(self, instance: DagsterInstance, equipment: Equipment) -> Any:
        return Logs(instance.compute_log_manager, equipment.server.compute_log_manager)

    @pytest.fixture(name="write_manager")
    def write_manager(self, instance: DagsterInstance) -> Any:
        return instance.compute_log_manager

    @pytest.fixture(name="read_manager")
    def read_manager(self, equipment: Equipment) -> Any:
        return equipment.server.compute_log_manager
