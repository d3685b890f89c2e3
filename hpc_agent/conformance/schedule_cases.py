"""Calls on ``GraphQLScheduleStorage`` and ``GraphQLDefsStateStorage``."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from dagster._core.definitions.run_request import InstigatorType, SkipReason
from dagster._core.definitions.sensor_definition import SensorType
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorTick,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster_shared.error import SerializableErrorInfo

from hpc_agent.conformance.case import CaseOf, StorageCase
from hpc_agent.conformance.sides import Side

ORIGIN = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__")
NIGHTLY = RemoteInstigatorOrigin(ORIGIN, "nightly")
ARRIVALS = RemoteInstigatorOrigin(ORIGIN, "arrivals")
STARTED_AT = 1_700_000_000.0
STATE_KEY = "component/one"
_Case = partial(CaseOf, "schedules")


def _state(origin: RemoteInstigatorOrigin, status: InstigatorStatus) -> InstigatorState:
    if origin is NIGHTLY:
        return InstigatorState(
            origin, InstigatorType.SCHEDULE, status, ScheduleInstigatorData("0 3 * * *", STARTED_AT)
        )
    data = SensorInstigatorData(
        last_tick_timestamp=STARTED_AT, last_run_key="key", min_interval=30, cursor="cursor",
        sensor_type=SensorType.STANDARD,
    )  # fmt: skip
    return InstigatorState(origin, InstigatorType.SENSOR, status, data)


def _selector(origin: RemoteInstigatorOrigin) -> str:
    return _state(origin, InstigatorStatus.RUNNING).selector_id


def _add_states(side: Side) -> object:
    side.schedules.add_instigator_state(_state(NIGHTLY, InstigatorStatus.RUNNING))
    side.schedules.add_instigator_state(_state(ARRIVALS, InstigatorStatus.STOPPED))
    return side.schedules.all_instigator_state()


def _update_state(side: Side) -> object:
    side.schedules.update_instigator_state(_state(ARRIVALS, InstigatorStatus.RUNNING))
    return side.schedules.get_instigator_state(ARRIVALS.get_id(), _selector(ARRIVALS))


def _tick(number: int, status: TickStatus) -> TickData:
    failed = status is TickStatus.FAILURE
    return TickData(
        instigator_origin_id=NIGHTLY.get_id(), instigator_name=NIGHTLY.instigator_name,
        instigator_type=InstigatorType.SCHEDULE, status=status, timestamp=STARTED_AT + number,
        selector_id=_selector(NIGHTLY), run_ids=[f"run{number}"], run_keys=[f"key{number}"],
        error=SerializableErrorInfo("broke", ["stack\n"], "ValueError") if failed else None,
        skip_reason=str(SkipReason("nothing to do")) if status is TickStatus.SKIPPED else None,
        cursor=str(number),
    )  # fmt: skip


def _create_ticks(side: Side) -> object:
    statuses = (TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE, TickStatus.STARTED)
    return [
        side.schedules.create_tick(_tick(number, status)) for number, status in enumerate(statuses)
    ]


def _update_tick(side: Side) -> object:
    newest = next(iter(_ticks(side, limit=1)))
    data = newest.tick_data._replace(status=TickStatus.SUCCESS, end_timestamp=STARTED_AT + 60)
    side.schedules.update_tick(InstigatorTick(newest.tick_id, data))
    return _ticks(side, limit=1)


def _ticks(side: Side, **options: object) -> list[InstigatorTick]:
    found = side.schedules.get_ticks(NIGHTLY.get_id(), _selector(NIGHTLY), **options)
    return list(found)


def _by_type(side: Side) -> object:
    return side.schedules.all_instigator_state(instigator_type=InstigatorType.SENSOR)


def _by_repository(side: Side) -> object:
    return side.schedules.all_instigator_state(
        repository_origin_id=ORIGIN.get_id(),
        repository_selector_id=_state(NIGHTLY, InstigatorStatus.RUNNING).repository_selector_id,
        instigator_statuses={InstigatorStatus.RUNNING},
    )


def _schedules() -> list[StorageCase]:
    every, one = _Case("all_instigator_state"), _Case("get_instigator_state")
    ticks = _Case("get_ticks")
    return [
        _Case("add_instigator_state")("a schedule and a sensor", _add_states),
        _Case("update_instigator_state")("started", _update_state),
        every("all", lambda side: side.schedules.all_instigator_state()),
        every("sensors", _by_type),
        every("running ones of a repository", _by_repository),
        one("a schedule", lambda side: side.schedules.get_instigator_state(
            NIGHTLY.get_id(), _selector(NIGHTLY))),
        one("none", lambda side: side.schedules.get_instigator_state("no", "no")),
        _Case("create_tick")("of each status", _create_ticks),
        ticks("all, newest first", _ticks),
        ticks("between two times", lambda side: _ticks(
            side, before=STARTED_AT + 3, after=STARTED_AT)),
        ticks("a few", lambda side: _ticks(side, limit=2)),
        ticks("by status", lambda side: _ticks(
            side, statuses=[TickStatus.FAILURE, TickStatus.SKIPPED])),
        _Case("update_tick")("finished", _update_tick),
    ]  # fmt: skip


def _upload(side: Side, version: str = "v1") -> object:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "state"
        path.write_text(f"state of {version}: ä\n", encoding="utf-8")
        side.defs_state.upload_state_from_path(STATE_KEY, version, path)
    return side.defs_state.get_latest_version(STATE_KEY)


def _download(side: Side, version: str = "v1") -> object:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "state"
        side.defs_state.download_state_to_path(STATE_KEY, version, path)
        return path.read_text(encoding="utf-8")


def _set_version(side: Side, version: str | None) -> object:
    side.defs_state.set_latest_version(STATE_KEY, version)
    return side.defs_state.get_latest_version(STATE_KEY)


def _versions(side: Side) -> object:
    info = side.defs_state.get_latest_defs_state_info()
    return {key: each and each.version for key, each in info.info_mapping.items()}


def _defs_state() -> list[StorageCase]:
    case = partial(CaseOf, "defs_state")
    return [
        case("get_latest_version")("before there is any", lambda side:
            side.defs_state.get_latest_version(STATE_KEY)),
        case("upload_state_from_path")("first version", _upload),
        case("upload_state_from_path")("second version", lambda side: _upload(side, "v2")),
        case("download_state_to_path")("the older one", _download),
        case("get_latest_defs_state_info")("all keys", _versions),
        case("list_state_keys_with_prefix")("one", lambda side:
            side.defs_state.list_state_keys_with_prefix("component")),
        case("set_latest_version")("back to the older one", lambda side: _set_version(side, "v1")),
        case("set_latest_version")("to none", lambda side: _set_version(side, None)),
    ]  # fmt: skip


SCHEDULE_CASES = _schedules()
DEFS_STATE_CASES = _defs_state()
