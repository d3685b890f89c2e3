"""SQLite files stay open between queries, a new run's is a copy, and stock storages share them."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance, EventLogEntry
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log import SqliteEventLogStorage
from sqlalchemy import text

from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.instance import open_instance, reference_to
from hpc_agent.control_plane.sqlite_storage import KeptEventLog, KeptSqliteStorage
from tests.control_plane.definitions import new_run


@pytest.fixture
def instance(home: Home) -> Iterator[DagsterInstance]:
    """The one of a process of the control plane."""
    with open_instance(home) as opened:
        yield opened


@pytest.fixture
def stock(home: Home) -> Iterator[DagsterInstance]:
    """What `dagster` commands and another webserver open there."""
    with DagsterInstance.from_config(str(home.root)) as opened:
        yield opened


def event(run_id: str, message: str) -> EventLogEntry:
    """Return an event as a run worker writes it."""
    data = EngineEventData(metadata={})
    engine = DagsterEvent("ENGINE_EVENT", "work", message=message, event_specific_data=data)
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None, level=20, user_message="", run_id=run_id, timestamp=1.0,
        dagster_event=engine,
    )  # fmt: skip


def file_of(instance: DagsterInstance, run_id: str) -> Path:
    """Return a run's file."""
    storage = instance.event_log_storage
    assert isinstance(storage, SqliteEventLogStorage)
    return Path(storage.path_for_shard(run_id))


def log_of(instance: DagsterInstance, run_id: str) -> Path:
    """Return the write-ahead log of a run's file."""
    return Path(f"{file_of(instance, run_id)}-wal")


def messages(instance: DagsterInstance, run_id: str) -> list[str]:
    """Return what the events of a run say."""
    return [entry.message for entry in instance.all_logs(run_id)]


def schema(path: Path) -> set[tuple[str, str]]:
    """Return tables and indexes, and the revision of all."""
    with closing(sqlite3.connect(path)) as file:
        found = set(file.execute("SELECT name, sql FROM sqlite_master"))
        mode = file.execute("PRAGMA journal_mode").fetchone()
        return found | {
            file.execute("SELECT version_num, '' FROM alembic_version").fetchone(),
            mode,
        }


def test_file_is_not_folded_up_after_each_event(
    instance: DagsterInstance, stock: DagsterInstance
) -> None:
    """Its log stays until the writer goes; what is in it is there for everybody."""
    run = new_run(stock, dg.DagsterRunStatus.STARTED)
    stock.handle_new_event(event(run.run_id, "of a stock storage"))

    instance.handle_new_event(event(run.run_id, "first"))
    assert log_of(instance, run.run_id).exists()
    stock.handle_new_event(event(run.run_id, "second"))
    assert messages(instance, run.run_id) == ["of a stock storage", "first", "second"]
    assert messages(stock, run.run_id) == ["of a stock storage", "first", "second"]

    instance.event_log_storage.dispose()
    assert not log_of(instance, run.run_id).exists()
    assert messages(instance, run.run_id) == ["of a stock storage", "first", "second"]


def test_file_of_a_new_run_is_what_dagster_makes(
    instance: DagsterInstance, stock: DagsterInstance
) -> None:
    """Without creating its tables anew."""
    ours, theirs = (new_run(stock, dg.DagsterRunStatus.STARTED).run_id for _ in range(2))
    instance.handle_new_event(event(ours, "first"))
    stock.handle_new_event(event(theirs, "first"))

    assert schema(file_of(instance, ours)) == schema(file_of(stock, theirs))
    assert not list(file_of(instance, ours).parent.glob(".*"))


def test_file_that_somebody_makes_at_the_moment_is_finished(
    instance: DagsterInstance, stock: DagsterInstance
) -> None:
    """One without tables was begun by a process that died, or is being made."""
    run = new_run(stock, dg.DagsterRunStatus.STARTED)
    file_of(instance, run.run_id).touch()

    instance.handle_new_event(event(run.run_id, "first"))
    assert messages(stock, run.run_id) == ["first"]


def test_many_begin_the_same_run(home: Home, stock: DagsterInstance) -> None:
    """Processes of the control plane and stock ones: no event is lost, and none is refused."""
    run_ids = [new_run(stock, dg.DagsterRunStatus.STARTED).run_id for _ in range(5)]
    with (
        open_instance(home) as first,
        open_instance(home) as second,
        ThreadPoolExecutor(9) as threads,
    ):
        writers = [first, second, stock] * 3
        for run_id in run_ids:
            entries = [event(run_id, str(number)) for number in range(len(writers))]
            list(threads.map(DagsterInstance.handle_new_event, writers, entries))
        for run_id in run_ids:
            assert sorted(messages(first, run_id)) == sorted(map(str, range(len(writers))))


def test_threads_have_a_file_one_after_the_other(instance: DagsterInstance) -> None:
    """And others have theirs meanwhile."""
    storage = instance.event_log_storage
    assert isinstance(storage, KeptEventLog)
    go, there = threading.Event(), threading.Event()

    def hold() -> None:
        with storage.run_connection("one"):
            there.set()
            assert go.wait(60)

    with ThreadPoolExecutor(2) as threads:
        held = threads.submit(hold)
        assert there.wait(60)
        with storage.run_connection("another") as connection:
            assert connection.execute(text("SELECT count(*) FROM event_logs")).scalar() == 0
        waits = threads.submit(instance.handle_new_event, event("one", "late"))
        with pytest.raises(TimeoutError):
            waits.result(0.5)
        go.set()
        held.result(60)
        waits.result(60)
    assert messages(instance, "one") == ["late"]


def test_query_that_fails_leaves_nothing_behind(instance: DagsterInstance) -> None:
    """Neither a transaction nor a lock."""
    storage = instance.event_log_storage
    assert isinstance(storage, KeptEventLog)
    instance.handle_new_event(event("one", "first"))
    with pytest.raises(ZeroDivisionError), storage.run_connection("one") as connection:
        connection.execute(text("DELETE FROM event_logs"))
        raise ZeroDivisionError
    assert messages(instance, "one") == ["first"]


def test_watcher_hears_of_each_event(home: Home, instance: DagsterInstance) -> None:
    """The web UI's page of a run follows the file, not its log."""
    run = new_run(instance, dg.DagsterRunStatus.STARTED)
    instance.handle_new_event(event(run.run_id, "first"))
    heard, news = list[str](), threading.Event()

    def hear(entry: EventLogEntry, _cursor: str) -> None:
        heard.append(entry.message)
        if entry.message == "second":
            news.set()

    with open_instance(home) as webserver:
        webserver.watch_event_logs(run.run_id, None, hear)
        instance.handle_new_event(event(run.run_id, "second"))
        assert news.wait(30), heard
        webserver.end_watch_event_logs(run.run_id, hear)


def test_least_used_files_are_let_go(home: Home, instance: DagsterInstance) -> None:
    """There are only so many descriptors."""
    directory = file_of(instance, "x").parent
    storage = KeptEventLog(str(directory), most=2)
    for name in ("one", "two", "three"):
        storage.store_event(event(name, "first"))
    storage.store_event(event("two", "second"))
    storage.store_event(event("four", "first"))

    names = ("one", "two", "three", "four")
    assert [log_of(instance, name).exists() for name in names] == [False, True, False, True]
    storage.dispose()


def test_file_that_was_replaced_is_opened_anew(instance: DagsterInstance) -> None:
    """What is written shall be in the file that others see."""
    instance.handle_new_event(event("one", "first"))
    instance.event_log_storage.wipe()
    assert not file_of(instance, "one").exists()
    assert not instance.all_logs("one")

    instance.handle_new_event(event("one", "second"))
    for path in file_of(instance, "one").parent.glob("one.db*"):
        path.unlink()
    assert not messages(instance, "one")
    instance.handle_new_event(event("one", "third"))
    assert messages(instance, "one") == ["third"]


def test_storage_of_somebody_else_is_left_alone(home: Home) -> None:
    """PostgreSQL, or what else dagster.yaml names; SQLite that it names is kept open too."""
    text = home.dagster_yaml.read_text()
    elsewhere = home.root / "elsewhere"
    for storage, name in (
        (f"sqlite: {{base_dir: {elsewhere}}}", KeptSqliteStorage.__name__),
        ("postgres: {postgres_url: 'postgresql://u@h/d'}", "DagsterPostgresStorage"),
        ("custom: {module: a.b, class: C}", "C"),
    ):
        home.dagster_yaml.write_text(f"{text}\nstorage:\n  {storage}\n")
        reference = reference_to(home.root)
        assert reference.storage_data is not None
        assert reference.storage_data.class_name == name
        stock = InstanceRef.from_dir(str(home.root)).storage_data
        assert stock is not None
        assert reference.storage_data.config_yaml == stock.config_yaml
