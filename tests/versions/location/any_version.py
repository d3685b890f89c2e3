"""User code that is the same on every release of Dagster from 1.11 on."""

import sys

import dagster as dg


@dg.asset(owners=["team:versions"], kinds={"python"})
def told(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Say on which release of Dagster this runs, in each way that there is."""
    print(f"printed on dagster {dg.__version__}")
    print(f"complained on dagster {dg.__version__}", file=sys.stderr)
    context.log.info(f"logged on dagster {dg.__version__}")
    return dg.MaterializeResult(
        metadata={"dagster": dg.__version__, "dagster/row_count": 3, "prefix": sys.prefix}
    )


@dg.asset_check(asset=told)
def is_told() -> dg.AssetCheckResult:
    """Be a check that passes."""
    return dg.AssetCheckResult(passed=True)


defs = dg.Definitions(
    assets=[told], asset_checks=[is_told], jobs=[dg.define_asset_job("tell", selection="*")]
)
