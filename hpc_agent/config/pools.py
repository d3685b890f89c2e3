"""Warm pools: allocations of Slurm in which many runs and steps live."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hpc_agent.config.section import Options, Seconds, Section

Execution = Literal["auto", "pool", "job"]
Warmth = Literal["fork", "spare", "off"]


class Slot(Section):
    """What one run or step of a pool may use.

    ``memory_mb`` None: no limit but the allocation's. ``seconds`` None: until the allocation ends.
    """

    cpus: Annotated[int, Field(ge=1)] = 1
    memory_mb: Annotated[int, Field(ge=64)] | None = None
    seconds: Seconds | None = None


class Pool(Section):
    """A pool: the options of its allocations, how many there are, and how long they stay.

    ``fallback_seconds``: what has found no slot for so long gets a job of its own; None: it waits.
    ``claim_seconds``: what was given to a slot and has not begun then is given to another one.
    """

    options: Options = {}
    slot: Slot = Slot()
    min: Annotated[int, Field(ge=0)] = 0
    max: Annotated[int, Field(ge=1)] = 1
    idle_seconds: Seconds = 600
    fallback_seconds: Seconds | None = 120
    claim_seconds: Seconds = 30
    handover_seconds: Seconds = 300
    failed_starts: Annotated[int, Field(ge=1)] = 3

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is more than max ({self.max})")
        return self
