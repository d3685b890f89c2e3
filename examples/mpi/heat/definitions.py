"""The code location."""

import dagster as dg

from .assets import temperature

defs = dg.Definitions(assets=[temperature], executor=dg.in_process_executor)
