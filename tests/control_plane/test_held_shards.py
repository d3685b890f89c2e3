"""A run's SQLite file stays open between its events, and whoever watches it hears of each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance, EventLogEntry
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage

from hpc_agent.control_plane.events import EventWriter
from hpc_agent.control_plane.held_shards import HeldShards
from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.instance import open_instance
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.idempotency import IdempotencyKeys
from tests.control_plane.definitions import new_run


@pytest.fixture
def instance(home: Home) -> Iterator[DagsterInstance]:
    """The gateway's."""
    opened = open_instance(home)
    yield opened
    opened.dispose()


@pytest.fixture
def webserver(home: Home) -> Iterator[DagsterInstance]:
    """Another process's, which makes the run's file."""
    opened = open_instance(home)
    yield opened
    opened.dispose()


def event(run_id: str, message: str) -> EventLogEntry:
    """Return an event as a run worker writes it."""
    data = EngineEventData(metadata={})
    engine = DagsterEvent("ENGINE_EVENT", "work", message=message, event_specific_data=data)
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None, level=20, user_message="", run_id=run_id, timestamp=1.0,
        dagster_event=engine,
    )  # fmt: skip


def log_of(instance: DagsterInstance, run_id: str) -> Path:
    """Return the write-ahead log of a run's file."""
    storage = instance.event_log_storage
    assert isinstance(storage, SqliteEventLogStorage)
    return Path(storage.path_for_shard(run_id) + "-wal")


def test_file_is_not_folded_up_after_each_event(
    instance: DagsterInstance, webserver: DagsterInstance, database: Database
) -> None:
    """Its log stays until the writer goes; what is in it is there for everybody."""
    run = new_run(webserver, dg.DagsterRunStatus.STARTED)
    webserver.handle_new_event(event(run.run_id, "of the webserver"))
    writer = EventWriter(instance, IdempotencyKeys(database))

    writer.write([event(run.run_id, "first")], "1")
    assert log_of(instance, run.run_id).exists()
    writer.write([event(run.run_id, "second")], "2")
    told = [entry.message for entry in webserver.all_logs(run.run_id)]
    assert told == ["of the webserver", "first", "second"]

    writer.close()
    assert not log_of(instance, run.run_id).exists()


def test_file_that_another_has_made_is_not_examined_again(
    instance: DagsterInstance, webserver: DagsterInstance
) -> None:
    """All revisions of Alembic would be read for it: more than the event takes."""
    run = new_run(webserver, dg.DagsterRunStatus.STARTED)
    webserver.handle_new_event(event(run.run_id, "of the webserver"))
    storage = instance.event_log_storage
    assert isinstance(storage, SqliteEventLogStorage)
    shards = HeldShards(storage)

    with shards.writing(run.run_id):
        assert run.run_id in storage._initialized_dbs
    shards.close()


def test_run_without_a_file_gets_one(instance: DagsterInstance, database: Database) -> None:
    """With all its tables, by its first event; the next one finds it and holds it."""
    run = new_run(instance, dg.DagsterRunStatus.STARTED)
    writer = EventWriter(instance, IdempotencyKeys(database))

    writer.write([event(run.run_id, "first")], "1")
    assert not log_of(instance, run.run_id).exists()
    writer.write([event(run.run_id, "second")], "2")

    assert log_of(instance, run.run_id).exists()
    assert len(instance.all_logs(run.run_id)) == 2
    writer.close()


def test_watcher_hears_of_each_event(
    instance: DagsterInstance, webserver: DagsterInstance, database: Database
) -> None:
    """The web UI's page of a run follows the file, not its log."""
    run = new_run(webserver, dg.DagsterRunStatus.STARTED)
    webserver.handle_new_event(event(run.run_id, "of the webserver"))
    writer = EventWriter(instance, IdempotencyKeys(database))
    writer.write([event(run.run_id, "first")], "1")
    heard, news = list[str](), threading.Event()

    def hear(entry: EventLogEntry, _cursor: str) -> None:
        heard.append(entry.message)
        if entry.message == "second":
            news.set()

    webserver.watch_event_logs(run.run_id, None, hear)
    writer.write([event(run.run_id, "second")], "2")

    assert news.wait(30), heard
    webserver.end_watch_event_logs(run.run_id, hear)
    writer.close()


def test_least_used_files_are_let_go(instance: DagsterInstance, webserver: DagsterInstance) -> None:
    """There are only so many descriptors."""
    shards = HeldShards(instance.event_log_storage, most=3)
    runs = [new_run(webserver, dg.DagsterRunStatus.STARTED).run_id for _ in range(4)]
    for run_id in runs:
        webserver.handle_new_event(event(run_id, "first"))
        with shards.writing(run_id):
            instance.handle_new_event(event(run_id, "second"))

    assert [log_of(instance, run_id).exists() for run_id in runs] == [False, False, True, True]
    shards.close()
