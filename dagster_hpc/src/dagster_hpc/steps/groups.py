"""Groups of steps that share a job: whether they can, and what a job of a group carries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set

from dagster_hpc.jobs import Tags
from dagster_hpc.steps.places import GROUP_TAG, STEP_TAG

MOST_STEPS = 1000
"""Of one job: the agent takes no more."""

Dependencies = Mapping[str, Set[str]]
"""Keys of steps, each with the keys of those it needs."""


def errors(tags: Mapping[str, Tags], needs: Dependencies, pooled: Collection[str]) -> list[str]:
    """Return what is wrong with the groups of a run; ``pooled`` steps claim a slot of a pool."""
    found = []
    for name in sorted({each[GROUP_TAG] for each in tags.values() if GROUP_TAG in each}):
        members = [step for step, each in tags.items() if each.get(GROUP_TAG) == name]
        between = _needs_itself(set(members), needs)
        if between:
            found.append(
                f"group {name}: step {between} is not in it, needs a step of it, and a step of it "
                "needs it in turn: put it into the group, or make two groups"
            )
        words = {tags[step][STEP_TAG] for step in members if STEP_TAG in tags[step]}
        if len(words) > 1 or "in_process" in words:
            found.append(
                f"group {name}: its steps share a process; they cannot run as "
                f"{' and '.join(sorted(words))}"
            )
        found += [
            f"group {name}: step {step} has a pool, of which it claims a slot by itself: take it "
            "out of the group"
            for step in members
            if step in pooled
        ]
    return found


def loads(
    ready: Sequence[str], pending: Dependencies, resolved: Set[str]
) -> Sequence[Sequence[str]]:
    """Return the steps of the jobs of a group; none as long as one of them needs a step outside.

    ``ready`` can start at once, ``pending`` are the other members that have not. It is one job,
    unless there are too many steps for it: then some of the pending ones are left for later.
    """
    steps = [*ready, *(step for step in pending if step not in ready)]
    inside = set(steps) | resolved
    if not all(needed <= inside for step, needed in pending.items() if step not in ready):
        return []
    if len(steps) <= MOST_STEPS:
        return [steps]
    if len(ready) < MOST_STEPS:
        return [part(ready, pending, resolved)]
    return [ready[first : first + MOST_STEPS] for first in range(0, len(ready), MOST_STEPS)]


def part(ready: Sequence[str], pending: Dependencies, resolved: Set[str]) -> Sequence[str]:
    """Return the steps that a job of a group can execute without what is missing from outside."""
    steps, inside = dict.fromkeys(ready), set(ready) | resolved
    border = set(ready)
    while border:
        border = {step for step, needed in pending.items() if needed <= inside} - inside
        inside |= border
        steps |= {step: None for step in pending if step in border}
    return list(steps)[:MOST_STEPS]


def _needs_itself(members: Set[str], needs: Dependencies) -> str | None:
    """Return a step outside that needs a member, and that a member needs; None without one."""
    above = _reachable(members, needs)
    needed_by: dict[str, set[str]] = {}
    for step, needed in needs.items():
        for other in needed:
            needed_by.setdefault(other, set()).add(step)
    between = (above & _reachable(members, needed_by)) - members
    return min(between) if between else None


def _reachable(start: Set[str], edges: Dependencies) -> set[str]:
    found: set[str] = set()
    border = set(start)
    while border:
        border = {other for step in border for other in edges.get(step, ())} - found
        found |= border
    return found
