"""Assets: raw readings, cleaned readings, a summary, and totals per day."""
# ruff: noqa: T201 - printed lines are what the example's compute logs consist of

import statistics
import sys
from typing import Any

import dagster as dg

from .stations import Reading, StationNetwork

OWNERS = ["team:weather", "forecaster@example.org"]
PLAUSIBLE_CELSIUS = (-60.0, 60.0)

READING_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("station", "string", description="Name of the station"),
        dg.TableColumn("hour", "int", description="Hour of the day, UTC"),
        dg.TableColumn(
            "celsius",
            "float",
            description="Air temperature",
            constraints=dg.TableColumnConstraints(nullable=False, other=["between -60 and 60"]),
        ),
    ],
    constraints=dg.TableConstraints(other=["one row per station and hour"]),
)

daily = dg.DailyPartitionsDefinition(start_date="2026-01-01")


@dg.asset(
    group_name="weather",
    owners=OWNERS,
    tags={"domain": "weather", "quality": "raw"},
    kinds={"python", "slurm"},
    code_version="1",
)
def raw_readings(network: StationNetwork) -> dg.MaterializeResult[list[Reading]]:
    """Hourly temperatures as the stations sent them, with gaps and absurd values."""
    readings = network.read()
    for station in network.stations:
        print(f"read {network.hours} hours from {station}", flush=True)
    gaps = sum(reading["celsius"] is None for reading in readings)
    print(f"{gaps} readings are missing", file=sys.stderr, flush=True)
    return dg.MaterializeResult(
        value=readings,
        metadata={
            "dagster/row_count": len(readings),
            "stations": dg.MetadataValue.json(network.stations),
            "missing": dg.MetadataValue.int(gaps),
            "source": dg.MetadataValue.url("https://example.org/stations"),
        },
    )


@dg.asset(
    group_name="weather",
    owners=OWNERS,
    tags={"domain": "weather", "quality": "clean"},
    kinds={"python", "slurm"},
    metadata={"dagster/column_schema": READING_COLUMNS},
)
def clean_readings(
    context: dg.AssetExecutionContext, raw_readings: list[Reading]
) -> dg.MaterializeResult[list[Reading]]:
    """Readings without gaps and without values that no weather on Earth has."""
    clean = [reading for reading in raw_readings if is_plausible(reading)]
    dropped = len(raw_readings) - len(clean)
    context.log.info("dropped %d of %d readings", dropped, len(raw_readings))
    return dg.MaterializeResult(
        value=clean,
        metadata={
            "dagster/column_schema": READING_COLUMNS,
            "dagster/row_count": len(clean),
            "kept": dg.MetadataValue.float(len(clean) / len(raw_readings)),
        },
    )


@dg.asset(
    group_name="weather", owners=OWNERS, tags={"domain": "weather"}, kinds={"python", "slurm"}
)
def summary(clean_readings: list[Reading]) -> dg.MaterializeResult[dict[str, float]]:
    """The mean temperature of each station."""
    means = means_by_station(clean_readings)
    rows = "\n".join(f"| {station} | {mean:.1f} |" for station, mean in means.items())
    warmest = max(means, key=lambda station: means[station])
    return dg.MaterializeResult(
        value=means,
        metadata={
            "report": dg.MetadataValue.md(f"| station | mean °C |\n|---|---|\n{rows}"),
            "warmest": dg.MetadataValue.text(warmest),
            "mean": dg.MetadataValue.float(statistics.fmean(means.values())),
            "means": dg.MetadataValue.json(means),
        },
    )


@dg.asset_check(asset=clean_readings, blocking=False)
def every_station_reported(clean_readings: list[Reading]) -> dg.AssetCheckResult:
    """Each station has readings for at least half of the day."""
    counts: dict[str, int] = {}
    for reading in clean_readings:
        counts[reading["station"]] = counts.get(reading["station"], 0) + 1
    return dg.AssetCheckResult(
        passed=bool(counts) and min(counts.values()) >= 12,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"readings": dg.MetadataValue.json(counts)},
    )


@dg.asset(
    group_name="archive",
    owners=OWNERS,
    tags={"domain": "weather"},
    kinds={"python", "slurm"},
    partitions_def=daily,
)
def daily_extremes(
    context: dg.AssetExecutionContext, network: StationNetwork
) -> dg.MaterializeResult[dict[str, Any]]:
    """The lowest and the highest temperature of one day."""
    day = context.partition_key
    measured = [reading["celsius"] for reading in network.read(day) if is_plausible(reading)]
    print(f"{day}: {len(measured)} readings", flush=True)
    extremes = {"day": day, "lowest": min(measured), "highest": max(measured)}
    return dg.MaterializeResult(
        value=extremes,
        metadata={
            "dagster/partition_row_count": len(measured),
            "lowest": dg.MetadataValue.float(extremes["lowest"]),
            "highest": dg.MetadataValue.float(extremes["highest"]),
        },
    )


def is_plausible(reading: Reading) -> bool:
    """Whether a reading has a value that weather can have."""
    celsius = reading["celsius"]
    return celsius is not None and PLAUSIBLE_CELSIUS[0] <= celsius <= PLAUSIBLE_CELSIUS[1]


def means_by_station(readings: list[Reading]) -> dict[str, float]:
    """Return the mean temperature of each station, in degrees Celsius."""
    stations = sorted({reading["station"] for reading in readings})
    return {
        station: statistics.fmean(
            reading["celsius"] for reading in readings if reading["station"] == station
        )
        for station in stations
    }
