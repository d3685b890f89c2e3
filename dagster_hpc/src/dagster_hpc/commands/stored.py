"""What the event log of the run has of a step already, from a process that died before this one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeAlias

import dagster as dg
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION

from dagster_hpc.commands.exchange import Delivered

OpContext: TypeAlias = (
    "dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext"
)
Result: TypeAlias = (
    "dg.MaterializeResult[Any] | dg.AssetCheckResult | dg.Output[None] |"
    "dg.AssetMaterialization | dg.AssetCheckEvaluation"
)

MARKER = "dagster-hpc/message"
"""The metadata by which a result is known again: the job, and the number of its message."""

NO_EVENT = {SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
"""The metadata by which Dagster takes an output and writes no event of its asset.

A step that is executed once more has to give all of its outputs again. Dagster itself uses it
where the event was written before (``execute_step.py`` of 1.11 to 1.13).
"""

_PAGE = 1000
# The first event of a page may be older than what was written down right before it.
_SLACK_SECONDS = 1.0


class Stored:
    """The results and log messages of this step that need not be given to Dagster once more."""

    def __init__(self, context: dg.OpExecutionContext) -> None:
        self._context = context
        self._step_key = context.get_step_execution_context().step.key
        self._markers: set[str] = set()

    def look(self, before: Delivered) -> Counter[str]:
        """Find results, and count the log messages whose delivery was not written down."""
        logged: Counter[str] = Counter()
        for event in self._since(before.created - _SLACK_SECONDS):
            if event.step_key != self._step_key:
                continue
            marker = _marker_of(event)
            if marker:
                self._markers.add(marker)
            elif event.dagster_event is None and event.timestamp >= before.at:
                logged[event.user_message] += 1
        return logged

    def has(self, marker: str) -> bool:
        """Whether the event log has the result."""
        return marker in self._markers

    def _since(self, timestamp: float) -> Iterator[dg.EventLogEntry]:
        """Yield the run's events, the newest first, back to a time."""
        cursor: str | None = None
        while True:
            page = self._context.instance.get_records_for_run(
                self._context.run_id, cursor=cursor, limit=_PAGE, ascending=False
            )
            for record in page.records:
                if record.event_log_entry.timestamp < timestamp:
                    return
                yield record.event_log_entry
            if not page.has_more:
                return
            cursor = page.cursor


def _marker_of(event: dg.EventLogEntry) -> str | None:
    told = event.dagster_event
    if told is None:
        return None
    if told.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
        metadata = told.step_materialization_data.materialization.metadata
    elif told.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        metadata = told.asset_check_evaluation_data.metadata
    else:
        return None
    value = metadata.get(MARKER)
    return str(value.value) if value is not None else None


def as_event(result: dg.PipesExecutionResult) -> Result:
    """Return a result as what an op may yield that makes no assets."""
    # A message of Pipes names asset and check.
    key = dg.AssetKey.from_coercible(result.asset_key or "")
    if isinstance(result, dg.AssetCheckResult):
        return dg.AssetCheckEvaluation(
            asset_key=key,
            check_name=result.check_name or "",
            passed=result.passed,
            severity=result.severity,
            metadata=result.metadata,
        )
    return dg.AssetMaterialization(key, metadata=result.metadata)


def stand_in(context: dg.OpExecutionContext, result: dg.AssetCheckResult) -> Iterator[Result]:
    """Yield the output of a check whose evaluation is in the event log."""
    step = context.get_step_execution_context()
    key = result.to_asset_check_evaluation(step).asset_check_key
    name = step.job_def.asset_layer.get_op_output_name(key)
    if name is not None:
        yield dg.Output(None, output_name=name)
