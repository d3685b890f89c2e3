"""What a user's imports have left in a process, and its workers are to have as well."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Dict, FrozenSet, Mapping, MutableMapping, Optional, Tuple

from .descriptors import opened

# Of a variable, what it was and what it is; None where it is not set.
Change = Tuple[Optional[str], Optional[str]]


@dataclass(frozen=True)
class Imported:
    """Descriptors that were opened, and variables that were set, changed or removed."""

    descriptors: FrozenSet[int]
    variables: Mapping[str, Change]

    def carry_over(self, environment: MutableMapping[str, str]) -> None:
        """Change variables as the imports did, where they are what the imports found.

        Where the member has another value it is the member's that counts.
        """
        for name, (found, left) in self.variables.items():
            if environment.get(name) != found:
                continue
            if left is None:
                environment.pop(name, None)
            else:
                environment[name] = left


class Before:
    """What a process has before the imports."""

    def __init__(self) -> None:
        self.descriptors = frozenset(opened())
        self._variables = dict(os.environ)

    def imported(self) -> Imported:
        """Return what has come since."""
        return Imported(
            frozenset(opened()) - self.descriptors, _changes(self._variables, os.environ)
        )


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> Dict[str, Change]:
    names = {name for name in (*before, *after) if not _is_ours(name)}
    pairs = {name: (before.get(name), after.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _is_ours(name: str) -> bool:
    """Whether it says where a member is: never what another process has made of it."""
    return name.startswith("HPC_AGENT_") or name == "DAGSTER_HOME"
