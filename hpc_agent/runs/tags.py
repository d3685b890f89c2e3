"""Tags of a run that look like ours and mean nothing: a misspelled one is ignored otherwise."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from hpc_agent.hints import did_you_mean
from hpc_agent.jobs.options import CONFIG_TAG, EXTRA_OPTION, TAG_PREFIX
from hpc_agent.jobs.options_table import OPTIONS, REFUSED
from hpc_agent.runs.image import IMAGE_TAG
from hpc_agent.runs.pool_choice import EXECUTION_TAG
from hpc_agent.runs.recovery import POLICY_TAGS
from hpc_agent.runs.step_needs import STEP_TAGS
from hpc_agent.workers.run_log import OWN_TAGS

KNOWN_TAGS = frozenset(
    {TAG_PREFIX + name for name in (*OPTIONS, *REFUSED, EXTRA_OPTION)}
    | {CONFIG_TAG, IMAGE_TAG, EXECUTION_TAG}
    | OWN_TAGS
    | set(POLICY_TAGS)
    | STEP_TAGS
)
_NAMESPACE = TAG_PREFIX.rstrip("/")
# "dagster-k8s" has 0.73, "dagster" 0.78.
_LIKE_OURS = 0.85
_LONGEST = 100


def strange_tags(tags: Mapping[str, str]) -> list[str]:
    """Return a sentence about each tag that means nothing to the agent, and was meant to."""
    return [
        f"Tag {tag[:_LONGEST]!r} means nothing to the agent and is ignored{_hint(tag)}"
        for tag in sorted(tags)
        if _is_meant_for_us(tag) and tag not in KNOWN_TAGS
    ]


def _is_meant_for_us(tag: str) -> bool:
    namespace, slash, _ = tag[:_LONGEST].partition("/")
    plain = namespace.lower().replace("_", "-")
    likeness = difflib.SequenceMatcher(None, plain, _NAMESPACE).ratio()
    return bool(slash) and likeness >= _LIKE_OURS


def _hint(tag: str) -> str:
    name = tag[:_LONGEST].partition("/")[2].lower().replace("_", "-")
    names = [known.removeprefix(TAG_PREFIX) for known in KNOWN_TAGS]
    return did_you_mean(name, names, prefix=TAG_PREFIX)
