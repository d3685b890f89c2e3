"""A sequencer that there is not: short reads with errors, from both strands of a round genome."""

import random
from collections.abc import Iterator
from pathlib import Path

from .samples import DATA, Sample

GENOME = DATA / "phix174.fa"
READ_LENGTH = 150
ERROR_RATE = 0.01
COMPLEMENT = str.maketrans("ACGT", "TGCA")


def read_genome(path: Path = GENOME) -> str:
    """Return the one sequence of a FASTA file."""
    _, *lines = path.read_text().splitlines()
    return "".join(lines)


def simulated_reads(genome: str, sample: Sample) -> Iterator[str]:
    """Yield the reads of a sample; the same seed gives the same reads."""
    chance = random.Random(sample.seed)
    circle = genome + genome[:READ_LENGTH]
    for _ in range(round(sample.depth * len(genome) / READ_LENGTH)):
        if chance.random() < sample.foreign:
            fragment = "".join(chance.choices("ACGT", k=READ_LENGTH))
        else:
            start = chance.randrange(len(genome))
            fragment = circle[start : start + READ_LENGTH]
        if chance.random() < 0.5:
            fragment = fragment[::-1].translate(COMPLEMENT)
        yield "".join(misread(base, chance) for base in fragment)


def misread(base: str, chance: random.Random) -> str:
    """Return the base, or by the error rate any."""
    return chance.choice("ACGT") if chance.random() < ERROR_RATE else base


def write_fastq(reads: Iterator[str], path: Path) -> int:
    """Write reads, all of one quality, and return their number."""
    number = 0
    with path.open("w") as file:
        for number, read in enumerate(reads, start=1):
            file.write(f"@read{number}\n{read}\n+\n{'I' * len(read)}\n")
    return number
