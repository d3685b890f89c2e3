"""Slurm options that cover every step of a run: what each asks for in the tags of its op or asset.

A run is one job, and its steps share it. So it gets the most that any of them asks for, the sum of
their times, and all the features; where two ask for what excludes each other, nothing can be right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from hpc_agent.errors import ConfigError
from hpc_agent.jobs.options import EXTRA_OPTION, Source, from_tags, settings_of
from hpc_agent.jobs.options_demand import seconds, size
from hpc_agent.jobs.options_table import ONE_OF, OPTIONS

StepTags = Sequence[tuple[str, Mapping[str, str]]]
"""Keys of steps and their tags; a step without tags of ours counts too, with the defaults."""

_Asked = list[tuple[str, str]]  # step, value

_LARGEST: Mapping[str, Callable[[str], float]] = {
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu", "tmp"), size),
    **dict.fromkeys(("cpus-per-task", "cpus-per-gpu", "ntasks", "ntasks-per-node"), float),
}
_GPUS = frozenset({"gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres"})
_COUNTED = re.compile(r"(?:(.*):)?(\d+)")
_SHOWN_STEPS = 3


def covering(
    steps: StepTags, *, defaults: Mapping[str, str], decided: Collection[str] = ()
) -> list[Source]:
    """Return the options of a run's steps, each from the step that decides it.

    ``defaults`` are what holds for steps that ask for nothing themselves; ``decided`` are options
    that the run itself sets, so that it does not matter what its steps ask for. Raises ConfigError.
    """
    settled = {name for group in ONE_OF for name in group if group & set(decided)} | set(decided)
    asked: dict[str, _Asked] = {}
    for step, tags in steps:
        for setting in settings_of(Source(f"tags of step {step}", from_tags(tags).options)):
            if setting.option not in settled:
                asked.setdefault(setting.option, []).append((step, setting.value))
    _refuse_exclusive(asked)
    found = []
    for option, values in asked.items():
        default = defaults.get(option) if len(values) < len(steps) else None
        decision = _decide(option, values, default)
        if decision is not None:
            deciding, value = decision
            options = {option: value} if option in OPTIONS else {EXTRA_OPTION: {option: value}}
            found.append(Source(deciding, options, by_user=True))
    return found


def _decide(option: str, values: _Asked, default: str | None) -> tuple[str, str] | None:
    """Return who decides an option, and its value; None where the default covers it."""
    if option == "time":
        return _sum_of_times(values, default)
    if option in _LARGEST:
        amount = _LARGEST[option]
        step, value = max(values, key=lambda each: amount(each[1]) or float("inf"))
        covered = default is not None and (amount(default) or float("inf")) >= amount(value) > 0
        return None if covered else (_name([step]), value)
    if option in _GPUS:
        return _most_gpus(option, values)
    if option == "constraint":
        features = list(dict.fromkeys(value for _, value in values))
        joined = "&".join(f"({each})" if "|" in each else each for each in features)
        return _name([step for step, _ in values]), joined
    (first, value), *others = values
    for step, other in others:
        if other != value:
            raise _contradiction(option, (first, value), (step, other))
    return _name([step for step, _ in values]), value


def _sum_of_times(values: _Asked, default: str | None) -> tuple[str, str] | None:
    total = sum(seconds(value) for _, value in values)
    if default is not None and seconds(default) >= total:
        return None
    name = _name([step for step, _ in values])
    if total == float("inf"):
        return name, "unlimited"
    minutes, rest = divmod(int(total), 60)
    return name, f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _most_gpus(option: str, values: _Asked) -> tuple[str, str]:
    """The largest number of one kind; of two kinds there is no largest."""
    best: tuple[str, str, int] | None = None
    kind: str | None = None
    for step, value in values:
        match = _COUNTED.fullmatch(value)
        own, count = (match[1] or "", int(match[2])) if match else (value, 1)
        if best is not None and own != kind:
            raise _contradiction(option, (best[0], best[1]), (step, value))
        if best is None or count > best[2]:
            best, kind = (step, value, count), own
    assert best is not None  # noqa: S101  (there is a value)
    return _name([best[0]]), best[1]


def _refuse_exclusive(asked: Mapping[str, _Asked]) -> None:
    for group in ONE_OF:
        both = sorted(group & asked.keys())
        if len(both) > 1:
            (one, _), (other, _) = asked[both[0]][0], asked[both[1]][0]
            raise ConfigError(
                f"step {one} asks for {both[0]} and step {other} for {both[1]}, which exclude each "
                "other: let both use the same option, or set one in a tag of the run"
            )


def _contradiction(option: str, one: tuple[str, str], other: tuple[str, str]) -> ConfigError:
    return ConfigError(
        f"step {one[0]} asks for {option} {one[1]} and step {other[0]} for {other[1]}: a run is "
        "one job, and cannot have both. Launch them in two runs, or set "
        f"dagster-hpc/{option} in a tag of the run, which wins"
    )


def _name(steps: Sequence[str]) -> str:
    shown = ", ".join(steps[:_SHOWN_STEPS])
    more = len(steps) - _SHOWN_STEPS
    word = "step" if len(steps) == 1 else "steps"
    return f"{word} {shown}" + (f" and {more} more" if more > 0 else "")
