"""Slurm's lists of hosts: ``n[01-04,7],login``."""

from __future__ import annotations

import itertools
import re

_WORD = re.compile(r"[^,\[]*(?:\[[^\]]*\][^,\[]*)+|[^,]+")
_PART = re.compile(r"\[([^\]]*)\]|([^\[]+)")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_MOST = 100_000


def expand(text: str) -> frozenset[str]:
    """Return the names. Raises ValueError for what is no list, or is too long a one."""
    found: set[str] = set()
    for word in _WORD.findall(text):
        parts = [_choices(inside) if inside else [plain] for inside, plain in _PART.findall(word)]
        for names in itertools.product(*parts):
            found.add("".join(names))
            if len(found) > _MOST:
                raise ValueError(f"too many hosts: {text[:100]}")
    return frozenset(found)


def _choices(inside: str) -> list[str]:
    """Return ``01``, ``02`` of ``01-02``: as wide as the first of them."""
    found: list[str] = []
    for part in inside.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"not a list of hosts: [{inside[:100]}]")
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first > _MOST:
            raise ValueError(f"too many hosts: [{inside[:100]}]")
        found += [f"{number:0{len(match[1])}}" for number in range(first, last + 1)]
    return found
