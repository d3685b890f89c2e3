"""The sample sheet: what was sequenced, one row a sample."""

import csv
from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).parent / "data"


class Sample(NamedTuple):
    """What to simulate: ``depth`` reads over each base, a share ``foreign`` of other origin."""

    name: str
    seed: int
    depth: float
    foreign: float


def read_sheet(path: Path = DATA / "samples.csv") -> dict[str, Sample]:
    """Return the samples by name, in the order of the sheet."""
    with path.open(newline="") as rows:
        return {
            row["name"]: Sample(
                name=row["name"],
                seed=int(row["seed"]),
                depth=float(row["depth"]),
                foreign=float(row["foreign"]),
            )
            for row in csv.DictReader(rows)
        }
