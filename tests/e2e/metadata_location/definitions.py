"""What ``dagster_cloud.yaml`` names."""

import dagster as dg

from . import automation, partitions, tables

defs = dg.Definitions(
    assets=[
        *(tables.orders, tables.revenue),
        *dg.load_assets_from_modules([partitions]),
        *automation.followers,
    ],
    asset_checks=[tables.quality],
    jobs=[
        automation.tiny,
        dg.define_asset_job("sales", selection=dg.AssetSelection.groups("sales")),
    ],
    schedules=[automation.next_minute],
    sensors=automation.sensors,
    resources={"warehouse": tables.Warehouse(schema_name="shop")},
    executor=dg.in_process_executor,
    metadata={"maintainer": "sales platform"},
)
