"""The defences of docs/security.md, each with its test and with the change that switches it off."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Defence:
    """``old`` stands once in ``file``; with ``new`` in its place, ``test`` fails."""

    name: str
    file: str
    old: str
    new: str
    test: str


def defences() -> list[Defence]:
    """Read them."""
    content = tomllib.loads((Path(__file__).parent / "defences.toml").read_text())
    return [Defence(**each) for each in content["defence"]]
