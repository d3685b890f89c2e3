"""The page of tags: what users may set on jobs, runs, ops and assets, and what the agent sets."""

from __future__ import annotations

from hpc_agent.jobs.options import CONFIG_TAG, EXTRA_OPTION, TAG_PREFIX
from hpc_agent.jobs.options_table import OPTIONS
from hpc_agent.manual.markdown import code, table
from hpc_agent.runs.image import IMAGE_TAG
from hpc_agent.runs.pool_choice import EXECUTION_TAG
from hpc_agent.runs.recovery import POLICY_TAGS
from hpc_agent.runs.step_needs import GROUP_TAG, PLACE_TAG
from hpc_agent.workers.run_log import (
    AGENT_ID_TAG,
    AGENT_LABEL_TAG,
    ATTEMPT_TAG,
    JOB_ID_TAG,
    NODE_TAG,
)

PAGE = "tags"

OF_USERS = {
    CONFIG_TAG: "a JSON object of options; a tag for one option wins over it",
    f"{TAG_PREFIX}{EXTRA_OPTION}": "a JSON object of sbatch's rarer options, where `policy.extra` "
    "lets users set them",
    PLACE_TAG: "where a step of `slurm_executor` runs: [steps](../steps.md)",
    GROUP_TAG: "steps of `slurm_executor` that share a job: [steps](../steps.md)",
    EXECUTION_TAG: "where it executes: `auto`, `pool`, `job`; of a step as well (docs/pools.md)",
    IMAGE_TAG: "another container image for this run: an absolute path or a URI",
}
OF_AGENT = {
    JOB_ID_TAG: "the Slurm job of the run's newest attempt",
    ATTEMPT_TAG: "which attempt of the run this is, from the second on",
    NODE_TAG: "the node, or the nodes, that it runs on",
    AGENT_ID_TAG: "the agent that submitted the run",
    AGENT_LABEL_TAG: "its `label`, where agent.yaml has one",
}
_ABOUT = """\
Tags of Dagster are set on jobs, schedules, sensors and runs, and (options only) as `op_tags` on
ops and assets. [Where options come from](../options.md) says which one wins. A tag that looks like
one of these and is none is told in the run's log."""


def pages() -> dict[str, str]:
    """Return the text of the page by its name."""
    options = [
        (code(TAG_PREFIX + option.name), option.form, code(option.example))
        for option in OPTIONS.values()
    ]
    others = [(code(name), about) for name, about in OF_USERS.items()]
    policies = [
        (code(tag), f"`runs.retries.{key}` for this run: [retry policies](../retry-policies.md)")
        for tag in POLICY_TAGS
        for key in [tag.removeprefix(TAG_PREFIX).replace("-", "_")]
    ]
    parts = [
        "# Tags",
        _ABOUT,
        "## Slurm options",
        table(["tag", "value", "example"], options),
        "## Other tags that users set",
        table(["tag", "meaning"], [*others, *policies]),
        "## Tags that the agent sets on runs",
        table(["tag", "meaning"], [(code(name), about) for name, about in OF_AGENT.items()]),
    ]
    return {PAGE: "\n\n".join(parts) + "\n"}
