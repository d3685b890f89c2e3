"""What a run leaves: events, metadata, results of checks, its own state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.e2e.metadata.item import (
    COLUMN_FIELDS,
    COLUMNS,
    RECENT,
    TEXT,
    Item,
    Where,
    asset,
    produced,
    run,
    tags_of,
)

KEY_OF_PRICE = {"assetKey": {"path": ["raw", "orders"]}, "columnName": "price"}


def check(name: str, expected: Mapping[str, Any]) -> Item:
    """The latest result of an asset check of raw/orders."""
    return Item(
        what=f"check {name}",
        document="""query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {
          ... on AssetNode { assetChecksOrError { ... on AssetChecks { checks {
            name description executionForLatestMaterialization {
              status timestamp evaluation { severity success description metadataEntries {
                label ... on IntMetadataEntry { intValue }
          } } } } } } } } }""",
        variables={"key": {"path": ["raw", "orders"]}},
        pick=lambda data: next(
            {**found["executionForLatestMaterialization"], "about": found["description"]}
            for found in data["assetNodeOrError"]["assetChecksOrError"]["checks"]
            if found["name"] == name
        ),
        expected=expected,
    )


def _evaluation(
    status: str,
    severity: str,
    *,
    said: str | None = None,
    about: str | None = None,
    entries: list[Any] | None = None,
) -> dict[str, Any]:
    return {
        "status": status,
        "timestamp": RECENT,
        "about": about,
        "evaluation": {
            "severity": severity,
            "success": status == "SUCCEEDED",
            "description": said,
            "metadataEntries": entries or [],
        },
    }


EVENTS = [
    asset(
        "materialization",
        "raw/orders",
        """assetMaterializations(limit: 1) {
          stepKey timestamp runOrError { ... on Run { jobName } } }""",
        {
            "assetMaterializations": [
                {
                    "stepKey": "raw__orders",
                    "timestamp": RECENT,
                    "runOrError": {"jobName": "sales"},
                }
            ]
        },
    ),
    asset(
        "tags of a materialization",
        "raw/orders",
        "assetMaterializations(limit: 1) { tags { key value } }",
        {
            "assetMaterializations": [
                {
                    "tags": Where(
                        lambda tags: tags_of(tags, "quality") == {"quality": "checked"},
                        "quality: checked",
                    )
                }
            ]
        },
    ),
    asset("data version", "raw/orders", "dataVersion", {"dataVersion": "orders-data-1"}),
    produced("a_text", "TextMetadataEntry", "text", {"text": "schema shop"}),
    produced("a_url", "UrlMetadataEntry", "url", {"url": "https://example.org/result"}),
    produced("a_path", "PathMetadataEntry", "path", {"path": "/data/orders.csv"}),
    produced("a_notebook", "NotebookMetadataEntry", "path", {"path": "/data/orders.ipynb"}),
    produced(
        "a_json",
        "JsonMetadataEntry",
        "jsonString",
        {
            "jsonString": Where(
                lambda text: json.loads(text) == {"nested": [1, None, "three"]}, "the JSON value"
            )
        },
    ),
    produced("a_markdown", "MarkdownMetadataEntry", "mdStr", {"mdStr": "# Orders"}),
    produced("an_int", "IntMetadataEntry", "intValue", {"intValue": 42}),
    produced("a_float", "FloatMetadataEntry", "floatValue", {"floatValue": 0.5}),
    produced("a_bool", "BoolMetadataEntry", "boolValue", {"boolValue": True}),
    produced("a_null", "NullMetadataEntry", "label", {}),
    produced("a_timestamp", "TimestampMetadataEntry", "timestamp", {"timestamp": 1_764_000_000.0}),
    produced(
        "an_asset",
        "AssetMetadataEntry",
        "assetKey { path }",
        {"assetKey": {"path": ["raw", "orders"]}},
    ),
    produced(
        "a_job",
        "JobMetadataEntry",
        "jobName locationName",
        {"jobName": "tiny", "locationName": "metadata"},
    ),
    produced(
        "a_run",
        "PipelineRunMetadataEntry",
        "runId",
        {"runId": Where(lambda run_id: len(run_id) == 36, "a run's id")},
    ),
    produced(
        "an_artifact",
        "PythonArtifactMetadataEntry",
        "module name",
        {"module": "metadata_location.tables", "name": "Warehouse"},
    ),
    produced(
        "a_table",
        "TableMetadataEntry",
        "table { records schema { columns { name } } }",
        {
            "table": {
                "records": Where(
                    lambda rows: (
                        [json.loads(row) for row in rows] == [{"order_id": 1, "price": 2.5}]
                    ),
                    "one row",
                ),
                "schema": {"columns": [{"name": "order_id"}]},
            }
        },
    ),
    produced("dagster/column_schema", "TableSchemaMetadataEntry", COLUMN_FIELDS, COLUMNS),
    produced("dagster/row_count", "IntMetadataEntry", "intValue", {"intValue": 1234}),
    produced(
        "dagster/column_lineage",
        "TableColumnLineageMetadataEntry",
        "lineage { columnName columnDeps { assetKey { path } columnName } }",
        {"lineage": [{"columnName": "revenue", "columnDeps": [KEY_OF_PRICE]}]},
        key="report/revenue",
    ),
]

CHECKS = [
    check(
        "has_rows",
        _evaluation(
            "SUCCEEDED",
            "ERROR",
            about="There are orders.",
            entries=[{"label": "rows", "intValue": 1234}],
        ),
    ),
    check("no_gaps", _evaluation("FAILED", "WARN")),
    check("adds_up", _evaluation("FAILED", "ERROR", said="off by 1")),
]

RUN = [
    run("run status", "status jobName", dict, {"status": "SUCCESS", "jobName": "sales"}),
    run(
        "run timestamps",
        "creationTime startTime endTime updateTime",
        dict,
        dict.fromkeys(("creationTime", "startTime", "endTime", "updateTime"), RECENT),
    ),
    run(
        "execution context",
        "tags { key value }",
        lambda found: tags_of(
            found["tags"],
            *("dagster/agent_id", "dagster-hpc/job-id", "dagster/code_location", "asked-by"),
        ),
        {
            "dagster/agent_id": TEXT,
            "dagster-hpc/job-id": TEXT,
            "dagster/code_location": "metadata",
            "asked-by": "test",
        },
    ),
    run(
        "where a run's code is from",
        "repositoryOrigin { repositoryLocationName repositoryName }",
        lambda found: found["repositoryOrigin"],
        {"repositoryLocationName": "metadata", "repositoryName": "__repository__"},
    ),
    run(
        "assets of a run",
        "assets { key { path } }",
        lambda found: sorted("/".join(asset["key"]["path"]) for asset in found["assets"]),
        ["raw/orders", "report/revenue"],
    ),
    run(
        "steps of a run",
        "stepStats { stepKey status startTime endTime }",
        lambda found: sorted(found["stepStats"], key=lambda step: str(step["stepKey"])),
        [
            {"stepKey": step, "status": "SUCCESS", "startTime": RECENT, "endTime": RECENT}
            for step in ("quality", "raw__orders", "report__revenue")
        ],
    ),
]
