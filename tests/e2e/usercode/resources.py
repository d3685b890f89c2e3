"""Ops and assets that say what they need of the cluster."""

import dagster as dg


@dg.asset(op_tags={"dagster-hpc/mem": "300M", "dagster-hpc/time": "10"})
def small() -> int:
    """Needs little."""
    return 1


@dg.asset(op_tags={"dagster-hpc/mem": "700M", "dagster-hpc/time": "20"})
def large(small: int) -> int:
    """Needs more."""
    return small


@dg.asset(op_tags={"dagster-hpc/partition": "debug"})
def debugged() -> None:
    """Says where."""


@dg.asset(op_tags={"dagster-hpc/partition": "long"})
def elsewhere() -> None:
    """Says somewhere else."""


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["north", "south"]))
def by_region() -> dg.MaterializeResult[int]:
    """Has partitions, and a data version of its own."""
    return dg.MaterializeResult(data_version=dg.DataVersion("7"), value=1)


@dg.asset(deps=[by_region])
def below() -> None:
    """Is stale when what it depends on is materialized anew."""


@dg.op(tags={"dagster-hpc/cpus-per-task": "2"})
def busy() -> None:
    """Two CPUs."""


@dg.job
def busy_job() -> None:
    """A job of one op."""
    busy()


defs = dg.Definitions(assets=[small, large, debugged, elsewhere, by_region, below], jobs=[busy_job])
