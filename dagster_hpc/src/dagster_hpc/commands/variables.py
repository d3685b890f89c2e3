"""What a command learns of its run by plain environment variables, whatever it is written in."""

from __future__ import annotations

import dagster as dg


def variables_of(context: dg.OpExecutionContext) -> dict[str, str]:
    """Return the variables: the run, the step, the asset where it is one, and the partition."""
    variables = {
        "DAGSTER_RUN_ID": context.run_id,
        "DAGSTER_JOB_NAME": context.job_name,
        "DAGSTER_STEP_KEY": context.get_step_execution_context().step.key,
        "DAGSTER_RETRY_NUMBER": str(context.retry_number),
    }
    if context.has_assets_def and len(context.selected_asset_keys) == 1:
        (key,) = context.selected_asset_keys
        variables["DAGSTER_ASSET_KEY"] = key.to_escaped_user_string()
    if context.has_partition_key:
        variables["DAGSTER_PARTITION_KEY"] = context.partition_key
    elif context.has_partition_key_range:
        first, last = context.partition_key_range.start, context.partition_key_range.end
        variables |= {"DAGSTER_PARTITION_FIRST": first, "DAGSTER_PARTITION_LAST": last}
    return variables
