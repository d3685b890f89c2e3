"""Whether a run or step lives in a pool: by its tag, its code location, and what it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpc_agent.config import AgentConfig
from hpc_agent.config.pools import Execution
from hpc_agent.errors import ConfigError
from hpc_agent.hints import did_you_mean
from hpc_agent.jobs.options import TAG_PREFIX, Source

EXECUTION_TAG = TAG_PREFIX + "execution"
_WORDS: Mapping[str, Execution] = {"auto": "auto", "pool": "pool", "job": "job"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What decides: ``layers`` are those of its options.

    ``is_resized``: it asks for more than an earlier attempt had. ``why_not`` says why nothing of it
    can live in a pool, "" when it can.
    """

    location: str | None
    tags: Mapping[str, str]
    layers: Sequence[Source]
    is_resized: bool = False
    why_not: str = ""


def pool_of(config: AgentConfig, wish: Wish) -> str | None:
    """Return the pool, None for a job of its own.

    Raises ConfigError where a pool is asked for and cannot be had.
    """
    own = config.locations.get(wish.location or "")
    execution, source = _execution(wish.tags, own.execution if own is not None else "auto")
    if execution == "job" or wish.is_resized:
        return None
    if own is None or own.pool is None:
        if execution == "pool":
            raise ConfigError(
                f"{source}: code location {wish.location} has no pool; set "
                f"`locations.{wish.location}.pool` in agent.yaml, or leave the tag out"
            )
        return None
    obstacle = wish.why_not or _asks(wish.layers)
    if not obstacle:
        return own.pool
    if execution == "pool":
        raise ConfigError(
            f"{source}: it cannot execute in pool {own.pool}: {obstacle}; leave that out, or take "
            f"the tag {EXECUTION_TAG}: job"
        )
    return None


def _execution(tags: Mapping[str, str], default: Execution) -> tuple[Execution, str]:
    text = tags.get(EXECUTION_TAG)
    if text is None:
        return default, "agent.yaml locations: execution: pool"
    chosen = _WORDS.get(text.strip())
    if chosen is None:
        hint = did_you_mean(text, list(_WORDS))
        raise ConfigError(
            f"tag {EXECUTION_TAG}: {text[:100]!r} is none of {', '.join(_WORDS)}{hint}"
        )
    return chosen, f"tag {EXECUTION_TAG}: {chosen}"


def _asks(layers: Sequence[Source]) -> str:
    """Say which options it asks for by itself: a slot of a pool is as large as all others."""
    asked = [
        f"{option} ({layer.name})" for layer in layers if layer.by_user for option in layer.options
    ]
    return f"it asks for {', '.join(asked)}" if asked else ""
