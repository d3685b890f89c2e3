"""The code location."""

import dagster as dg

from dagster_hpc import PipesSlurmClient

from . import assets

# What is to follow when Slurm ends the job: it goes on, and loses an epoch at most.
GO_ON = {
    "dagster-hpc/on-preempt": "requeue",
    "dagster-hpc/on-node-fail": "requeue",
}

train = dg.define_asset_job(
    "train", selection=dg.AssetSelection.assets(assets.digit_classifier), tags=GO_ON
)

defs = dg.Definitions(
    assets=[assets.digit_classifier],
    asset_checks=[assets.reads_unseen_digits],
    jobs=[train],
    resources={"slurm": PipesSlurmClient()},
    # One step after the other: they need no processes of their own in the job.
    executor=dg.in_process_executor,
)
