"""The code location."""

from importlib.util import find_spec

import dagster as dg

from . import assets, automation, jobs
from .stations import StationNetwork
from .storage import JsonFiles

more_jobs = []
if find_spec("dagster_hpc") is not None:
    from .steps import stepwise_job

    more_jobs.append(stepwise_job)

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([assets]),
    asset_checks=dg.load_asset_checks_from_modules([assets]),
    jobs=[jobs.weather_job, jobs.archive_job, jobs.sleepy_job, jobs.failing_job, *more_jobs],
    schedules=[automation.every_morning, automation.every_minute],
    sensors=[automation.new_request_file],
    resources={"network": StationNetwork(), "io_manager": JsonFiles()},
)
