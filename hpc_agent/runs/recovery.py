"""What follows when Slurm has ended a run's job: pure decisions from evidence and policy.

Only a final state that Slurm or the node program told starts another attempt: a job that is LOST,
refused, withdrawn or was asked to end does not, and user code that fails is Dagster's to retry.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from hpc_agent.config import Retries, Retry, RetryWithMemory, RetryWithTime
from hpc_agent.errors import ConfigError
from hpc_agent.inbound.json_text import loads
from hpc_agent.jobs.options import TAG_PREFIX
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import duration_or_none, parse_memory
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Worker

_TAG_START = TAG_PREFIX + "on-"
_MEBIBYTE = 1 << 20


class Cause(enum.Enum):
    """Why Slurm ended a job; the value is the name of its policy."""

    PREEMPT = "on_preempt"
    NODE_FAIL = "on_node_fail"
    BOOT_FAIL = "on_boot_fail"
    TIMEOUT = "on_timeout"
    OUT_OF_MEMORY = "on_out_of_memory"


POLICY_TAGS = tuple(TAG_PREFIX + cause.value.replace("_", "-") for cause in Cause)

_CAUSES: Mapping[JobState, Cause] = {
    JobState.PREEMPTED: Cause.PREEMPT,
    JobState.NODE_FAIL: Cause.NODE_FAIL,
    JobState.BOOT_FAIL: Cause.BOOT_FAIL,
    JobState.LAUNCH_FAILED: Cause.BOOT_FAIL,
    JobState.RECONFIG_FAIL: Cause.BOOT_FAIL,
    JobState.TIMEOUT: Cause.TIMEOUT,
    JobState.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An option that the next attempt asks more of."""

    option: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NextAttempt:
    """A further attempt is due: its number, of how many, with which options changed."""

    number: int
    limit: int
    changes: tuple[Change, ...] = ()

    @property
    def overrides(self) -> dict[str, str]:
        """The options of the attempt over those of the first."""
        return {change.option: change.new for change in self.changes}


@dataclass(frozen=True, slots=True, kw_only=True)
class NoMore:
    """There is no further attempt; ``reason`` is "" when none was ever wanted."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the job that ended had asked Slurm for.

    A further attempt gets no less than ``least_memory`` (bytes) and ``least_seconds`` where it gets
    more: a slot of a pool may have had much less than a job of its own asks for.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    time_limit_seconds: float | None = None
    least_memory: float = 0.0
    least_seconds: float = 0.0


def cause_of(worker: Worker) -> Cause | None:
    """Return why Slurm ended a job; None when it was not Slurm."""
    if worker.phase is not Phase.ENDED or worker.terminate_at is not None:
        return None
    return _CAUSES.get(worker.state)


def decide(worker: Worker, policies: Retries, asked: Asked) -> NextAttempt | NoMore:
    """Say whether a run whose job is over gets a further attempt.

    A ``requeue`` that Slurm has not made by itself is made good by a new job of the same size.
    """
    cause = cause_of(worker)
    if cause is None:
        return NoMore()
    policy: Retry = getattr(policies, cause.value)
    if policy.action == "fail":
        tag = TAG_PREFIX + cause.value.replace("_", "-")
        return NoMore(reason=f"with {tag}: resubmit such a run goes on in another job")
    made = worker.attempt + worker.restart_count
    if made >= policy.limit:
        return NoMore(reason=f"all {policy.limit} attempts of {cause.value} are used up")
    if isinstance(policy, RetryWithMemory):
        return _with_more(worker, policy.limit, _more_memory(policy, asked))
    if isinstance(policy, RetryWithTime):
        return _with_more(worker, policy.limit, _more_time(policy, asked))
    return NextAttempt(number=worker.attempt + 1, limit=policy.limit)


def may_restart(policies: Retries, restart_count: int) -> str | None:
    """Say why a job that Slurm has requeued must not go on with its run, if so."""
    requeued = [
        policy
        for policy in (policies.on_preempt, policies.on_node_fail, policies.on_boot_fail)
        if policy.action == "requeue"
    ]
    if not requeued:
        return "Slurm restarted the job of a run that no policy lets go on (runs.retries)"
    limit = max(policy.limit for policy in requeued)
    if restart_count >= limit:
        return f"all {limit} attempts are used up"
    return None


def signals_left_open(policies: Retries, attempt: int) -> list[str]:
    """Return the signals after which another attempt goes on, so that the run must stay open.

    SIGTERM comes with a preemption, and from the slurmd of a node that slurmctld has set down
    (it is told to terminate the job); SIGUSR1 before the time limit (``sbatch --signal``).
    """
    ends: dict[str, tuple[Retry, ...]] = {
        "SIGTERM": (policies.on_preempt, policies.on_node_fail),
        "SIGUSR1": (policies.on_timeout,),
    }
    return [
        signal
        for signal, causes in ends.items()
        if any(policy.action != "fail" and attempt < policy.limit for policy in causes)
    ]


def policies_of(defaults: Retries, tags: Mapping[str, str]) -> Retries:
    """Return the policies of a run: those of agent.yaml, and its own tags over them.

    A tag holds a word (``resubmit``) or JSON (``{"action": "resubmit", "attempts": 5}``).
    Raises ConfigError.
    """
    chosen: dict[str, object] = {}
    for tag, text in tags.items():
        if tag.startswith(_TAG_START):
            name = tag.removeprefix(TAG_PREFIX).replace("-", "_")
            if name not in Retries.model_fields:
                known = ", ".join(POLICY_TAGS)
                raise ConfigError(f"tag {tag}: there is no such policy; there are {known}")
            chosen[name] = _checked(defaults, tag, name, text)
    return defaults.model_copy(update=chosen)


def _checked(defaults: Retries, tag: str, name: str, text: str) -> Retry:
    default: Retry = getattr(defaults, name)
    try:
        content = loads(text) if text.lstrip().startswith("{") else {"action": text.strip()}
    except ValueError as error:
        raise ConfigError(f"tag {tag}: not valid JSON: {error}") from None
    # A factor and a limit that the site has set hold unless the tag says otherwise.
    inherited = default.model_dump(exclude_unset=True) | content
    try:
        return type(default).model_validate(inherited)
    except ValidationError as error:
        raise ConfigError(f"tag {tag}: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    problem: Any = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {problem['input']!r})" if where else message


def _with_more(worker: Worker, limit: int, change: Change | NoMore) -> NextAttempt | NoMore:
    if isinstance(change, NoMore):
        return change
    return NextAttempt(number=worker.attempt + 1, limit=limit, changes=(change,))


def _more_memory(policy: RetryWithMemory, asked: Asked) -> Change | NoMore:
    option = "mem-per-cpu" if "mem-per-cpu" in asked.options else "mem"
    old = asked.options.get(option)
    size = parse_memory(old) if old else None
    if not old or not size:
        return NoMore(
            reason="no attempt with more memory: the job named no amount that could be multiplied; "
            "set dagster-hpc/mem"
        )
    new = int(max(size * policy.mem_factor, asked.least_memory))
    new = new if policy.max is None else min(new, parse_memory(policy.max) or new)
    if new <= size:
        return NoMore(reason=f"no attempt with more memory: {old} is the most it may have")
    return Change(option=option, old=old, new=_memory_text(new))


def _more_time(policy: RetryWithTime, asked: Asked) -> Change | NoMore:
    text = asked.options.get("time")
    seconds = (duration_or_none(text) if text else None) or asked.time_limit_seconds
    if not seconds:
        return NoMore(reason="no attempt with more time: the job's time limit is not known")
    new = max(seconds * policy.time_factor, asked.least_seconds)
    longest = duration_or_none(policy.max) if policy.max else None
    new = new if longest is None else min(new, longest)
    if new <= seconds:
        return NoMore(
            reason=f"no attempt with more time: {slurm_time(seconds)} is the most it may have"
        )
    return Change(option="time", old=text or slurm_time(seconds), new=slurm_time(new))


def _memory_text(size: int) -> str:
    """Return the size as sbatch takes it, in gigabytes where they are whole."""
    mebibytes = -(-size // _MEBIBYTE)
    return f"{mebibytes // 1024}G" if mebibytes % 1024 == 0 else f"{mebibytes}M"


def slurm_time(seconds: float) -> str:
    """Return ``hours:minutes:seconds``; Slurm counts whole minutes."""
    minutes = -(-int(seconds) // 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:00"
