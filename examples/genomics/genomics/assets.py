"""Reads, alignments and coverage of each sample, and a report on all of them."""

from pathlib import Path

import dagster as dg

from .alignment import align, read_paf, threads
from .coverage import Coverage, coverage_of
from .samples import read_sheet
from .sequencing import GENOME, read_genome, simulated_reads, write_fastq

SAMPLES = read_sheet()
by_sample = dg.StaticPartitionsDefinition(list(SAMPLES))


def directory_of(sample: str) -> Path:
    """Return where the files of a sample are: below the working directory, which nodes share."""
    directory = Path("results", sample)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@dg.asset(
    partitions_def=by_sample,
    kinds={"python", "slurm"},
    op_tags={"dagster-hpc/mem": "500M", "dagster-hpc/time": "00:05:00"},
)
def reads(context: dg.AssetExecutionContext) -> None:
    """Reads of one sample, simulated from the genome of phage phiX174: no sequencer made them."""
    sample = SAMPLES[context.partition_key]
    path = directory_of(sample.name) / "reads.fastq"
    number = write_fastq(simulated_reads(read_genome(), sample), path)
    context.add_output_metadata({"reads": number, "path": dg.MetadataValue.path(path)})


@dg.asset(
    deps=[reads],
    partitions_def=by_sample,
    kinds={"minimap2", "slurm"},
    op_tags={
        "dagster-hpc/cpus-per-task": "2",
        "dagster-hpc/mem": "1G",
        "dagster-hpc/time": "00:10:00",
    },
)
def alignments(context: dg.AssetExecutionContext) -> None:
    """Where the reads lie on the genome, as minimap2 finds."""
    directory = directory_of(context.partition_key)
    output = directory / "alignments.paf"
    align(directory / "reads.fastq", genome=GENOME, output=output)
    context.add_output_metadata({"threads": threads(), "path": dg.MetadataValue.path(output)})


@dg.asset(
    deps=[alignments],
    partitions_def=by_sample,
    kinds={"python", "slurm"},
    op_tags={"dagster-hpc/mem": "500M", "dagster-hpc/time": "00:05:00"},
)
def coverage(context: dg.AssetExecutionContext) -> Coverage:
    """How much of the genome the sample covers; the UI plots the numbers over the partitions."""
    found = list(read_paf(directory_of(context.partition_key) / "alignments.paf"))
    covered = coverage_of(found, len(read_genome()))
    context.add_output_metadata(
        {
            "aligned_reads": covered.aligned_reads,
            "mean_depth": covered.mean_depth,
            "lowest_depth": covered.lowest_depth,
            "breadth": covered.breadth,
        }
    )
    return covered


@dg.asset(kinds={"markdown", "slurm"}, op_tags={"dagster-hpc/time": "00:05:00"})
def report(context: dg.AssetExecutionContext, coverage: dict[str, Coverage]) -> None:
    """All samples side by side; needs every partition."""
    rows = "\n".join(row_of(sample, coverage[sample]) for sample in SAMPLES)
    table = f"| sample | aligned reads | mean depth | breadth |\n|---|---|---|---|\n{rows}\n"
    context.add_output_metadata({"report": dg.MetadataValue.md(table), "samples": len(coverage)})


def row_of(sample: str, covered: Coverage) -> str:
    """Return a sample's row of the report."""
    depth, breadth = f"{covered.mean_depth:.1f}", f"{covered.breadth:.1%}"
    return f"| {sample} | {covered.aligned_reads} | {depth} | {breadth} |"
