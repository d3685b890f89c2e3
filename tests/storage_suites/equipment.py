"""The instances that the suites get: one a process, emptied before each test."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster import DagsterInstance
from dagster._config import UserConfigSchema
from dagster._core.storage.compute_log_manager import ComputeLogManager
from dagster._core.storage.runs.schema import BackfillTagsTable
from dagster._serdes import ConfigurableClassData
from dagster_cloud.storage.runs.storage import GraphQLRunStorage

from hpc_agent.conformance.plane import running_plane
from hpc_agent.conformance.sides import client_instance, plain_instance
from tests.storage_suites.side import SIDE_VARIABLE, URL_VARIABLE, Side, Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """An instance under test, and the one that has the database: the same on a plain side."""

    side: Side
    instance: DagsterInstance
    server: DagsterInstance

    def empty(self) -> None:
        """Leave nothing for the next test to find."""
        # By the one under test: SQLite's storage remembers which files it has made.
        self.instance.event_log_storage.wipe()
        _empty_runs(self.server)
        _schedules(self.server).wipe()
        _empty_pools(self.server)
        _empty_states(self.server)
        _empty_logs(self.server)


@contextlib.contextmanager
def equipment() -> Iterator[Equipment]:
    """Open what the environment names."""
    side, url = Side.of(os.environ[SIDE_VARIABLE]), os.environ.get(URL_VARIABLE)
    opened = _plain if side.storage is Storage.PLAIN else _gateway
    with (
        tempfile.TemporaryDirectory(prefix="storage-suites-") as directory,
        opened(side, Path(directory), url) as found,
    ):
        yield found


@contextlib.contextmanager
def _plain(side: Side, directory: Path, url: str | None) -> Iterator[Equipment]:
    with plain_instance(directory / "plain", url) as instance:
        yield Equipment(side=side, instance=instance, server=instance)


@contextlib.contextmanager
def _gateway(side: Side, directory: Path, url: str | None) -> Iterator[Equipment]:
    runs = {"module": __name__, "class": "DeletableRuns", "config": {"home": f"{directory}/home"}}
    with (
        running_plane(directory / "home", database_url=url) as plane,
        DagsterInstance.from_config(str(plane.home.root)) as server,
        client_instance(plane, directory / "client", run_storage=runs) as instance,
    ):
        yield Equipment(side=side, instance=instance, server=server)


class DeletableRuns(GraphQLRunStorage):
    """The client's runs, deleted where they are kept: suites clean up so, and clients may not."""

    def __init__(self, inst_data: ConfigurableClassData, home: str) -> None:
        super().__init__(inst_data=inst_data)
        self._server = DagsterInstance.from_config(home)

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {"home": str}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Any
    ) -> DeletableRuns:
        return cls(inst_data, config_value["home"])

    def delete_run(self, run_id: str) -> None:
        self._server.run_storage.delete_run(run_id)

    def wipe(self) -> None:
        self._server.run_storage.wipe()

    def dispose(self) -> None:
        self._server.dispose()


class Logs:
    """Compute logs as a run writes them and the web UI reads them: the client itself reads none."""

    def __init__(self, writer: ComputeLogManager, reader: ComputeLogManager) -> None:
        self.capture_logs = writer.capture_logs
        self.open_log_stream = writer.open_log_stream
        self._reader = reader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


def _schedules(instance: DagsterInstance) -> Any:
    return instance.schedule_storage


def _empty_runs(instance: DagsterInstance) -> None:
    runs: Any = instance.run_storage
    runs.wipe()
    with runs.connect() as connection:
        connection.execute(BackfillTagsTable.delete())  # Dagster's wipe forgets these


def _empty_pools(instance: DagsterInstance) -> None:
    events: Any = instance.event_log_storage
    for run_id in events.get_concurrency_run_ids():
        events.free_concurrency_slots_for_run(run_id)
    for key in events.get_concurrency_keys():
        events.delete_concurrency_limit(key)


def _empty_states(instance: DagsterInstance) -> None:
    states: Any = instance.defs_state_storage
    latest = states.get_latest_defs_state_info()
    for key in latest.info_mapping if latest else ():
        states.set_latest_version(key, None)


def _empty_logs(instance: DagsterInstance) -> None:
    logs: Any = instance.compute_log_manager
    for each in Path(logs.get_captured_local_path(["a"], "out")).parent.glob("*"):
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink()
