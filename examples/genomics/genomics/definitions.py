"""The code location."""

import dagster as dg

from . import assets

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([assets]),
    # The steps of a sample follow one another: they need no processes of their own in its job.
    executor=dg.in_process_executor,
)
