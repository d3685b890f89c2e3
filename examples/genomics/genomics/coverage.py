"""How often, and how much of, a genome was read."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from .alignment import Alignment


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """``breadth`` is the share of bases that any read covers."""

    aligned_reads: int
    mean_depth: float
    lowest_depth: int
    breadth: float


def coverage_of(alignments: Sequence[Alignment], genome_length: int) -> Coverage:
    """Return what the alignments cover."""
    depths = depth_by_base(alignments, genome_length)
    return Coverage(
        aligned_reads=len({each.read for each in alignments}),
        mean_depth=sum(depths) / genome_length,
        lowest_depth=min(depths),
        breadth=sum(depth > 0 for depth in depths) / genome_length,
    )


def depth_by_base(alignments: Sequence[Alignment], genome_length: int) -> list[int]:
    """Return for each base how many alignments lie over it."""
    changes = [0] * (genome_length + 1)
    for each in alignments:
        changes[each.start] += 1
        changes[each.end] -= 1
    return list(accumulate(changes[:-1]))
