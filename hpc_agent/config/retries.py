"""What follows when Slurm ends a run's job: nothing, the same job again, or a new job with more."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hpc_agent.config.section import Section

Factor = Annotated[float, Field(gt=1, le=1000)]

_RESUBMISSIONS = 3
_REQUEUES = 10
_FACTOR = 2.0
_MEMORY = re.compile(r"[0-9]+[KMGTkmgt]?")
_TIME = re.compile(r"([0-9]+-)?[0-9]+(:[0-9]{1,2}){0,2}")


class Retry(Section):
    """One policy; ``resubmit`` alone is short for ``{action: resubmit}``.

    ``attempts`` counts all of them, the first one too.
    """

    action: Literal["fail", "requeue", "resubmit"]
    attempts: Annotated[int, Field(ge=1, le=100)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _word_is_an_action(cls, content: Any) -> Any:
        return {"action": content} if isinstance(content, str) else content

    @property
    def limit(self) -> int:
        """How many attempts there are; requeueing is what preemptible partitions live by."""
        return self.attempts or (_REQUEUES if self.action == "requeue" else _RESUBMISSIONS)


class RetryWithMemory(Retry):
    """After OUT_OF_MEMORY: each attempt asks for ``mem_factor`` times as much, at most ``max``."""

    action: Literal["fail", "resubmit"]
    mem_factor: Factor = _FACTOR
    max: str | None = None

    @model_validator(mode="after")
    def _max_is_memory(self) -> Self:
        if self.max is not None and not _MEMORY.fullmatch(self.max):
            raise ValueError(f"max must be an amount of memory such as 64G, not {self.max!r}")
        return self


class RetryWithTime(Retry):
    """After TIMEOUT: each attempt asks for ``time_factor`` times as long, at most ``max``."""

    action: Literal["fail", "resubmit"]
    time_factor: Factor = _FACTOR
    max: str | None = None

    @model_validator(mode="after")
    def _max_is_a_time(self) -> Self:
        if self.max is not None and not _TIME.fullmatch(self.max):
            raise ValueError(f"max must be a time such as 24:00:00, not {self.max!r}")
        return self


class Retries(Section):
    """A policy for each end that Slurm brings about. User code that fails is Dagster's to retry.

    By default a run goes on only where nothing of it can have run yet: its node did not boot.
    """

    on_preempt: Retry = Retry(action="fail")
    on_node_fail: Retry = Retry(action="fail")
    on_boot_fail: Retry = Retry(action="resubmit")
    on_timeout: RetryWithTime = RetryWithTime(action="fail")
    on_out_of_memory: RetryWithMemory = RetryWithMemory(action="fail")

    @property
    def lets_slurm_requeue(self) -> bool:
        """Whether jobs are submitted with ``--requeue``."""
        causes = (self.on_preempt, self.on_node_fail, self.on_boot_fail)
        return any(policy.action == "requeue" for policy in causes)
