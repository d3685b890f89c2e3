"""Two assets, their checks and the resource they use: everything that can be said of them is."""

from collections.abc import Iterator

import dagster as dg

COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("order_id", "int", description="Number of the order."),
        dg.TableColumn("price", "float", tags={"unit": "euro"}),
    ]
)
CODE = dg.CodeReferencesMetadataValue(
    code_references=[
        dg.UrlCodeReference(url="https://git.example.org/orders.py", label="orders.py"),
        dg.LocalFileCodeReference(file_path="/code/orders.py", line_number=12),
    ]
)


class Warehouse(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the tables are."""

    schema_name: str
    port: int = 5432


@dg.asset(
    key=["raw", "orders"],
    description="Orders as they come in.",
    owners=["ada@example.org", "team:sales"],
    tags={"domain": "sales", "tier": "gold"},
    group_name="sales",
    kinds={"python", "csv"},
    code_version="orders-7",
    op_tags={"cost": "low"},
    metadata={
        "runbook": dg.MetadataValue.url("https://wiki.example.org/orders"),
        "dagster/code_references": CODE,
        "dagster/column_schema": COLUMNS,
        "dagster/table_name": "shop.raw.orders",
    },
)
def orders(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Attach a value of every type to the materialization."""
    value = dg.MetadataValue
    row = dg.TableRecord({"order_id": 1, "price": 2.5})
    return dg.MaterializeResult(
        metadata={
            "a_text": f"schema {warehouse.schema_name}",
            "a_url": value.url("https://example.org/result"),
            "a_path": value.path("/data/orders.csv"),
            "a_notebook": value.notebook("/data/orders.ipynb"),
            "a_json": value.json({"nested": [1, None, "three"]}),
            "a_markdown": value.md("# Orders"),
            "an_int": 42,
            "a_float": 0.5,
            "a_bool": True,
            "a_null": value.null(),
            "a_timestamp": value.timestamp(1_764_000_000.0),
            "an_asset": value.asset(dg.AssetKey(["raw", "orders"])),
            "a_job": value.job("tiny", location_name="metadata"),
            "a_run": value.dagster_run(context.run_id),
            "an_artifact": value.python_artifact(Warehouse),
            "a_table": value.table(
                [row], schema=dg.TableSchema(columns=[dg.TableColumn("order_id", "int")])
            ),
            "dagster/column_schema": COLUMNS,
            "dagster/row_count": 1234,
        },
        data_version=dg.DataVersion("orders-data-1"),
        tags={"quality": "checked"},
    )


@dg.asset(
    key=["report", "revenue"],
    deps=[orders],
    group_name="sales",
    description="Revenue per day.",
)
def revenue() -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Say which column comes from which."""
    price = dg.TableColumnDep(asset_key=dg.AssetKey(["raw", "orders"]), column_name="price")
    lineage = dg.TableColumnLineage(deps_by_column={"revenue": [price]})
    return dg.MaterializeResult(metadata={"dagster/column_lineage": lineage})


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec("has_rows", asset=orders, description="There are orders."),
        dg.AssetCheckSpec("no_gaps", asset=orders),
        dg.AssetCheckSpec("adds_up", asset=orders),
    ]
)
def quality() -> Iterator[dg.AssetCheckResult]:
    """One check that passes, one that warns, one that fails."""
    key = orders.key
    warn, error = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
    yield dg.AssetCheckResult(
        asset_key=key, check_name="has_rows", passed=True, metadata={"rows": 1234}
    )
    yield dg.AssetCheckResult(asset_key=key, check_name="no_gaps", passed=False, severity=warn)
    yield dg.AssetCheckResult(
        asset_key=key, check_name="adds_up", passed=False, severity=error, description="off by 1"
    )
