"""What user code concludes from what it reads through the stock client, and what it then stores."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.definitions.observe import observe
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent, DagsterEventType
from dagster._core.storage.dagster_run import DagsterRun

from hpc_agent.conformance.history import QUIET
from hpc_agent.conformance.plane import running_plane
from hpc_agent.conformance.sides import client_instance

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning"),
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    # dagster_cloud_cli/core/artifacts.py leaves the file that it uploads open.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CONSUMED = "dagster/input_data_version/source"


@dg.asset(deps=["source"])
def table() -> None: ...


@dg.asset(automation_condition=dg.AutomationCondition.in_progress())
def report() -> None: ...


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterInstance]:
    """The stock agent's instance, as code servers and run workers have it."""
    directory = tmp_path_factory.mktemp("reads")
    with (
        running_plane(directory / "home") as plane,
        client_instance(plane, directory / "client") as opened,
    ):
        yield opened


def test_provenance_names_the_data_that_was_observed(instance: DagsterInstance) -> None:
    """What a materialization was made from is stored for good."""

    @dg.observable_source_asset
    def source() -> dg.DataVersion:
        return dg.DataVersion("seventh")

    observe([source], instance=instance, run_config=QUIET)

    dg.materialize([table], instance=instance, run_config=QUIET)

    made = instance.get_latest_materialization_event(table.key)
    assert made is not None
    assert made.asset_materialization is not None
    assert (made.asset_materialization.tags or {})[CONSUMED] == "seventh"


@pytest.mark.parametrize(
    ("status", "requested"), [(DagsterRunStatus.STARTED, 1), (DagsterRunStatus.SUCCESS, 0)]
)
def test_asset_is_in_progress_while_its_run_goes_on(
    instance: DagsterInstance, status: DagsterRunStatus, requested: int
) -> None:
    """As ``AutomationCondition.in_progress()`` sees it in a code server."""
    run = instance.add_run(DagsterRun(job_name="reports", status=status))
    planned = DagsterEvent(
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
        "reports",
        event_specific_data=AssetMaterializationPlannedData(report.key),
    )
    instance.report_dagster_event(planned, run.run_id)

    found = dg.evaluate_automation_conditions(defs=[report], instance=instance)

    assert found.total_requested == requested
