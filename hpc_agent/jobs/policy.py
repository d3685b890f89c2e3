"""The site's policy on what a job may ask Slurm for: pure decisions from settings and rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from hpc_agent.config.policy import Policy, Rules
from hpc_agent.errors import ConfigError
from hpc_agent.jobs import options
from hpc_agent.jobs.options import EXTRA_OPTION, IMAGE_OPTION, Setting, Source
from hpc_agent.jobs.options_demand import Amount, Demand, seconds, size
from hpc_agent.jobs.options_table import EXTRA, OPTIONS

FORCED = "agent.yaml policy.force"

_AMOUNTS: dict[str, Callable[[Demand], Amount | None]] = {
    "time": Demand.time,
    "nodes": Demand.nodes,
    "cpus": Demand.cpus,
    "mem": Demand.mem,
    "gpus": Demand.gpus,
}
_FOR_USERS = frozenset({*OPTIONS, IMAGE_OPTION})
_LISTS = {"partition": "partitions", "account": "accounts", "qos": "qos"}


def settle(rules: Rules, sources: Sequence[Source]) -> tuple[Setting, ...]:
    """Merge options, the forced ones last. Raises ConfigError for all that breaks a rule."""
    broken = [text for source in sources if source.by_user for text in _not_theirs(rules, source)]
    _refuse(broken)
    settings = options.merge([*sources, Source(FORCED, rules.force)])
    _refuse([*_not_open(rules, settings), *_out_of_bounds(rules, settings)])
    return settings


def refuse_unless_theirs(rules: Rules, name: str, *, source: str) -> None:
    """Raise ConfigError when users may not set this (``allow``, ``forbid``)."""
    _refuse(list(_not_for_users(rules, name, source)))


def check_rules(policy: Policy) -> None:
    """Raise ConfigError when a rule names what is no option."""
    for rules in policy.everywhere:
        for rule, names, known in (
            ("allow", rules.allow or [], _FOR_USERS),
            ("forbid", rules.forbid, _FOR_USERS),
            ("extra", rules.extra, EXTRA),
        ):
            wrong = sorted(set(names) - set(known))
            if wrong:
                raise ConfigError(
                    f"agent.yaml policy.{rule}: no such option: {', '.join(wrong)}; "
                    "`hpc-agent options list` shows them all"
                )


def _refuse(broken: Sequence[str]) -> None:
    if broken:
        raise ConfigError("the site's policy forbids this job: " + "; ".join(broken))


def _not_theirs(rules: Rules, source: Source) -> Iterator[str]:
    """Yield what is wrong with the options that a user has set."""
    for setting in options.settings_of(source):
        name = setting.option
        if name not in OPTIONS:
            if name not in rules.extra:
                allowed = ", ".join(sorted(rules.extra)) or "none"
                yield (
                    f"{source.name} may not set {EXTRA_OPTION} option {name} (policy.extra); "
                    f"allowed are: {allowed}"
                )
        else:
            yield from _not_for_users(rules, name, source.name)


def _not_for_users(rules: Rules, name: str, source: str) -> Iterator[str]:
    if name in rules.forbid:
        yield f"{source} may not set {name} (policy.forbid)"
    elif rules.allow is not None and name not in rules.allow:
        allowed = ", ".join(sorted(rules.allow)) or "none"
        yield f"{source} may not set {name} (policy.allow); allowed are: {allowed}"


def _not_open(rules: Rules, settings: Sequence[Setting]) -> Iterator[str]:
    for setting in settings:
        rule = _LISTS.get(setting.option)
        allowed: list[str] | None = getattr(rules, rule) if rule else None
        for name in setting.value.split(","):
            if allowed is not None and name not in allowed:
                yield (
                    f"{setting.option} {name} ({setting.source}) is not open to it "
                    f"(policy.{rule}); allowed are: {', '.join(sorted(allowed)) or 'none'}"
                )


def _out_of_bounds(rules: Rules, settings: Sequence[Setting]) -> Iterator[str]:
    demand = Demand(settings)
    for name, amount_of in _AMOUNTS.items():
        most, least = getattr(rules.max, name), getattr(rules.min, name)
        if most is None and least is None:
            continue
        try:
            amount = amount_of(demand)
        except ValueError as error:
            yield f"{name} has bounds (policy.max, policy.min) and cannot be known: {error}"
            continue
        if amount is None:
            continue
        if most is not None and amount.value > _bound(name, most):
            yield f"{_words(name, amount)}; at most {most} is allowed (policy.max.{name})"
        if least is not None and amount.value < _bound(name, least):
            yield f"{_words(name, amount)}; at least {least} is required (policy.min.{name})"


def _bound(name: str, value: str | int) -> float:
    reader = {"time": seconds, "mem": size}.get(name, float)
    return reader(str(value))


def _words(name: str, amount: Amount) -> str:
    """``cpus is 256 (ntasks=16 by run tags, …)``."""
    of = ", ".join(f"{each.option}={each.value} by {each.source}" for each in amount.settings)
    value = {"time": _time_words, "mem": _size_words}.get(name, _count_words)(amount.value)
    return f"{name} is {value} ({of or 'without any option'})"


def _time_words(value: float) -> str:
    if math.isinf(value):
        return "without limit"
    minutes, rest = divmod(int(value), 60)
    days, hours = divmod(minutes // 60, 24)
    return f"{days}-{hours:02}:{minutes % 60:02}:{rest:02}"


def _size_words(value: float) -> str:
    return "all of a node" if math.isinf(value) else f"{value / (1 << 30):g}G"


def _count_words(value: float) -> str:
    return "all of a node" if math.isinf(value) else str(int(value))
