"""The two sides of a comparison: a plain Dagster instance, and the stock agent's over our gateway.

Both are written to by the same calls in the same order, so that even storage ids are equal.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from dagster import DagsterInstance
from dagster_cloud.instance import DagsterCloudAgentInstance

from hpc_agent.conformance.documents import operation_names
from hpc_agent.conformance.history import DYNAMIC, History, RecordedRun
from hpc_agent.conformance.plane import DEPLOYMENT, Plane, environment
from hpc_agent.control_plane.database_url import storage_yaml
from hpc_agent.control_plane.home import DAGSTER_YAML

OVER_HTTP = {"DAGSTER_CLOUD_STORE_EVENT_OVER_HTTP": "1"}
RETRIES = 2
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two: its Dagster instance, and what was written to it."""

    instance: DagsterInstance
    history: History

    @property
    def is_client(self) -> bool:
        return isinstance(self.instance, DagsterCloudAgentInstance)

    # Untyped: the stock client widens and narrows the signatures of its base classes.
    @property
    def events(self) -> Any:
        return self.instance.event_log_storage

    @property
    def runs(self) -> Any:
        return self.instance.run_storage

    @property
    def schedules(self) -> Any:
        return self.instance.schedule_storage

    @property
    def defs_state(self) -> Any:
        return self.instance.defs_state_storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Both sides, and the names of the operations that the client has sent."""

    plain: Side
    client: Side
    sent: set[str] = field(default_factory=set)


@contextlib.contextmanager
def open_sides(
    plane: Plane, history: History, directory: Path, *, database_url: str | None = None
) -> Iterator[Sides]:
    """Open both instances and write the history to them.

    ``database_url`` names a PostgreSQL for the plain one: storages differ in what they count.
    """
    directory.mkdir(exist_ok=True)
    with (
        plain_instance(directory / "plain", database_url) as plain,
        client_instance(plane, directory / "client") as client,
    ):
        sides = Sides(
            plain=Side(instance=plain, history=history),
            client=Side(instance=client, history=history),
        )
        note_operations(client, sides.sent)
        for side in (sides.plain, sides.client):
            write_history(side)
        _end_of_this_second()
        yield sides


def _end_of_this_second() -> None:
    """Let what follows be later than the history on both sides, also for SQLite.

    It dates a new run by CURRENT_TIMESTAMP, in whole seconds, and each change of one exactly: one
    that is made within the second of a change would be older than that.
    """
    began = int(time.time())
    while int(time.time()) == began:
        time.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def plain_instance(home: Path, database_url: str | None = None) -> Iterator[DagsterInstance]:
    """Open an ordinary instance with SQLite or PostgreSQL, and the settings of a control plane.

    Some decide what is stored: with run retries, a failed run is tagged.
    """
    home.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML + storage_yaml(database_url, {}))
    with DagsterInstance.from_config(str(home)) as instance:
        yield instance


@contextlib.contextmanager
def client_instance(
    plane: Plane, home: Path, **more: object
) -> Iterator[DagsterCloudAgentInstance]:
    """Open the stock agent's instance, configured as its documentation says.

    ``more`` goes into its dagster.yaml.
    """
    home.mkdir()
    config = {
        "instance_class": {
            "module": "dagster_cloud.instance", "class": "DagsterCloudAgentInstance",
        },
        "dagster_cloud_api": {
            "url": plane.api, "agent_token": plane.agent_token, "deployment": DEPLOYMENT,
            "retries": RETRIES, "backoff_factor": 0.1,
        },
        "user_code_launcher": {
            "module": "dagster_cloud.workspace.user_code_launcher",
            "class": "ProcessUserCodeLauncher",
        },
        "defs_state_storage": {
            "module": "dagster_cloud.storage.defs_state", "class": "GraphQLDefsStateStorage",
        },
        **more,
    }  # fmt: skip
    (home / "dagster.yaml").write_text(yaml.safe_dump(config))
    with DagsterInstance.from_config(str(home)) as instance:
        if not isinstance(instance, DagsterCloudAgentInstance):
            raise TypeError(f"dagster.yaml made a {type(instance).__name__}")
        yield instance


def note_operations(instance: DagsterCloudAgentInstance, sent: set[str]) -> None:
    """Add the name of each operation that is answered to ``sent``: the cases judge the answer."""

    def note(response: Any, *_args: object, **_kwargs: object) -> None:
        if response.ok and response.request.path_url == "/graphql":
            sent.update(operation_names(json.loads(response.request.body)["query"]))

    instance.client_managed_retries_requests_session.hooks["response"].append(note)


def write_history(side: Side) -> None:
    """Write the recorded runs: single events first, then batches, then over HTTP."""
    instance, runs = side.instance, side.history.runs
    instance.add_dynamic_partitions(DYNAMIC, list(side.history.dynamic_partitions))
    third = len(runs) // 3
    writers = (_one_by_one, _in_a_batch, _over_http)
    for number, recorded in enumerate(runs):
        _write_run(instance, recorded, writers[min(number // third, 2)])


def _write_run(
    instance: DagsterInstance, recorded: RecordedRun, write: Callable[..., None]
) -> None:
    instance.run_storage.add_job_snapshot(recorded.job)
    instance.run_storage.add_execution_plan_snapshot(recorded.plan)
    instance.run_storage.add_run(recorded.run)
    write(instance, recorded)


def _one_by_one(instance: DagsterInstance, recorded: RecordedRun) -> None:
    for event in recorded.events:
        instance.handle_new_event(event)


def _in_a_batch(instance: DagsterInstance, recorded: RecordedRun) -> None:
    if isinstance(instance, DagsterCloudAgentInstance):
        instance.event_log_storage.store_event_batch(recorded.events)
    else:
        _one_by_one(instance, recorded)


def _over_http(instance: DagsterInstance, recorded: RecordedRun) -> None:
    with environment(OVER_HTTP):
        _one_by_one(instance, recorded)
