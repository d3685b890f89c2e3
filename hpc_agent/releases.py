"""Which releases of dagster and dagster-cloud go together: those of the same number.

dagster-cloud requires exactly its own release of dagster (its metadata: ``dagster==1.13.27``), and
is published later, at times by several releases.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_ASK_SECONDS = 30.0
# Metadata alone: an import of dagster takes seconds.
_ASK = """
from importlib.metadata import PackageNotFoundError, version
for name in ("dagster", "dagster-cloud"):
    try:
        print(version(name))
    except PackageNotFoundError:
        print("-")
"""
INSTALL = 'pip install "dagster-cloud>=1.13"'
"""What gets both right: to name dagster as well sends pip back through years of releases."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two releases in an environment; None for what is not there."""

    dagster: str | None
    dagster_cloud: str | None

    @property
    def fits(self) -> bool:
        """Whether user code can run with them."""
        return self.dagster is not None and self.dagster == self.dagster_cloud

    @property
    def words(self) -> str:
        """What is there."""
        return f"dagster {self.dagster or 'none'}, dagster-cloud {self.dagster_cloud or 'none'}"

    @property
    def trouble(self) -> str | None:
        """What is wrong with the pair, None when it fits."""
        if self.fits:
            return None
        if self.dagster is None or self.dagster_cloud is None:
            missing = "dagster-cloud" if self.dagster_cloud is None else "dagster"
            return f"{missing} is not installed"
        return (
            f"dagster {self.dagster} with dagster-cloud {self.dagster_cloud}, which is made for "
            f"dagster {self.dagster_cloud}"
        )

    def remedy(self, python: str) -> str:
        """Return the command that mends it."""
        if self.dagster_cloud is None:
            return f"{python} -m {INSTALL}"
        pins = f"dagster-cloud=={self.dagster_cloud} dagster=={self.dagster_cloud}"
        return f"{python} -m pip install {pins}"


def pair_of(words: str) -> Pair | None:
    """Read ``dagster 1.13.0, dagster-cloud 1.13.0``, as a probe job says it; None for others."""
    found = dict(part.split(" ") for part in words.split(", ") if part.count(" ") == 1)
    if set(found) != {"dagster", "dagster-cloud"}:
        return None
    return Pair(found["dagster"], found["dagster-cloud"])


def installed_in(python: Path) -> Pair | None:
    """Ask a Python of this machine; None when it cannot be asked. Blocks."""
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", _ASK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_ASK_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    if done.returncode != 0 or len(lines) != 2:
        return None
    dagster, cloud = (None if line == "-" else line for line in lines)
    return Pair(dagster, cloud)
