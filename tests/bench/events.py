"""What it costs to store an event through the gateway, beside Dagster's own storage without it.

Both take turns in one run, on the same database: the gateway is a process of its own, called as a
run worker's relay calls it, and the bare storage is that of the measuring process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, EventLogEntry
from dagster._core.events import DagsterEvent, DagsterEventType, EngineEventData
from dagster_cloud.storage.event_logs.queries import STORE_EVENT_MUTATION
from dagster_cloud.storage.event_logs.storage import _input_for_event

from tests.control_plane.conftest import postgres_home
from tests.control_plane.running import running_control_plane
from tests.postgres import NoPostgresError, find_binaries, running_server

_TIMES = 200
_RUNS = 20
_GATEWAY_ALONE = ("--no-webserver", "--no-daemon")

Ways = Mapping[str, Callable[[EventLogEntry], None]]
Figures = dict[str, Mapping[str, float] | str]


def events(directory: Path) -> Figures:
    """Return the milliseconds of one event, on SQLite and on PostgreSQL."""
    figures = {f"SQLite: {name}": found for name, found in _measure(directory / "sqlite").items()}
    try:
        with _postgres() as url:
            found = _measure(postgres_home(directory / "postgres", url).root)
    except NoPostgresError as error:
        return figures | {"PostgreSQL": f"not measured: {error}"}
    return figures | {f"PostgreSQL: {name}": each for name, each in found.items()}


@contextlib.contextmanager
def _postgres() -> Iterator[str]:
    """Start a server that syncs nothing: of its time, what is left is computing."""
    directory = Path(tempfile.mkdtemp(prefix="hpc-pg-"))
    try:
        with running_server(find_binaries(), directory) as server:
            yield server.create_database()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _measure(home: Path) -> Figures:
    with (
        running_control_plane(home, *_GATEWAY_ALONE) as control_plane,
        DagsterInstance.from_config(str(home)) as instance,
        httpx.Client(base_url=control_plane.api, verify=control_plane.trust) as client,
    ):
        token = control_plane.cli("token", "create").strip()
        client.headers.update(
            {"Dagster-Cloud-Api-Token": token, "Dagster-Cloud-Deployment": "prod"}
        )

        def through_gateway(entry: EventLogEntry) -> None:
            record = {"eventRecord": _input_for_event(entry)}
            _post(client, STORE_EVENT_MUTATION, record)

        ways: Ways = {
            "Dagster's storage alone": instance.handle_new_event,
            "StoreEvent through the gateway": through_gateway,
        }
        calls = [_timed(lambda: _post(client, "{ __typename }", {})) for _ in range(_TIMES)]
        return {
            "call that does nothing (ms)": _summary(calls),
            **{f"{name} (ms)": times for name, times in _in_turns(instance, ways).items()},
            **{
                f"{name}, first of a run that another process has begun (ms)": times
                for name, times in _first(instance, ways).items()
            },
        }


def _in_turns(instance: DagsterInstance, ways: Ways) -> dict[str, Mapping[str, float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    runs = {name: _new_run(instance) for name in ways}
    for _ in range(_TIMES):
        for name, store in ways.items():
            entry = _entry(runs[name])
            times[name].append(_timed(lambda store=store, entry=entry: store(entry)))  # type: ignore[misc]
    return {name: _summary(values) for name, values in times.items()}


def _first(instance: DagsterInstance, ways: Ways) -> dict[str, Mapping[str, float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_RUNS):
        for name, store in ways.items():
            run_id = _new_run(instance)
            # Who launches a run makes its file; to learn of it is the first writer's business.
            with DagsterInstance.from_ref(instance.get_ref()) as launcher:
                launcher.handle_new_event(_entry(run_id))
            entry = _entry(run_id)
            times[name].append(_timed(lambda store=store, entry=entry: store(entry)))  # type: ignore[misc]
    return {name: _summary(values) for name, values in times.items()}


def _new_run(instance: DagsterInstance) -> str:
    run = DagsterRun(job_name="job", run_id=str(uuid.uuid4()), status=DagsterRunStatus.STARTED)
    return instance.add_run(run).run_id


def _entry(run_id: str) -> EventLogEntry:
    event = DagsterEvent(
        DagsterEventType.ENGINE_EVENT.value, "job", message="an event of a common length " * 3,
        event_specific_data=EngineEventData(metadata={}), pid=os.getpid(),
    )  # fmt: skip
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None, level=20, user_message="", run_id=run_id, timestamp=time.time(),
        job_name="job", dagster_event=event,
    )  # fmt: skip


def _post(client: httpx.Client, document: str, variables: Mapping[str, Any]) -> None:
    content = {"query": document, "variables": variables}
    answer = client.post("/graphql", json=content, headers={"Idempotency-Key": uuid.uuid4().hex})
    if answer.status_code != 200 or "errors" in answer.json():
        raise SystemExit(f"the gateway refuses an event: {answer.text}")


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _summary(values: list[float]) -> Mapping[str, float]:
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 2),
        "p10": round(ordered[len(ordered) // 10], 2),
        "p95": round(ordered[int(len(ordered) * 0.95)], 2),
        "count": len(ordered),
    }
