"""Alignments by minimap2, and what its PAF files say; the format is described in minimap2(1)."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Alignment(NamedTuple):
    """Where a read lies on the genome: bases from ``start`` up to, and without, ``end``."""

    read: str
    start: int
    end: int


def threads() -> int:
    """Return how many CPUs there are for us: Slurm says it in a job, else all of this machine."""
    return int(os.environ.get("SLURM_CPUS_PER_TASK") or os.cpu_count() or 1)


def align(reads: Path, *, genome: Path, output: Path) -> None:
    """Align short reads; raises CalledProcessError, and then there is no output."""
    unfinished = output.with_suffix(".unfinished")
    options = ("-c", "-x", "sr", "--secondary=no", "-t", str(threads()), "-o", str(unfinished))
    subprocess.run(["minimap2", *options, str(genome), str(reads)], check=True)
    unfinished.replace(output)


def read_paf(path: Path) -> Iterator[Alignment]:
    """Yield the alignments of a PAF file."""
    with path.open() as lines:
        for line in lines:
            columns = line.split("\t")
            yield Alignment(read=columns[0], start=int(columns[7]), end=int(columns[8]))
