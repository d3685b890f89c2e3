"""Weather stations: where the readings come from, and what a reading is."""

import math
import random
from typing import Any

import dagster as dg

# One measurement: station, hour, and celsius, which is None when the sensor gave nothing. A plain
# dictionary, since Dagster checks annotated values and cannot check a TypedDict.
Reading = dict[str, Any]


class StationNetwork(dg.ConfigurableResource):  # type: ignore[type-arg,unused-ignore]
    """A network of stations that measure once an hour; the same seed gives the same weather."""

    stations: list[str] = ["feldberg", "helgoland", "zugspitze"]  # noqa: RUF012 - pydantic copies it
    hours: int = 24
    seed: int = 4827

    def read(self, day: str = "") -> list[Reading]:
        """Return the readings of one day; one in ten is missing, one in fifty is absurd."""
        weather = random.Random(f"{self.seed} {day}")  # noqa: S311 - made-up weather, no secret
        return [
            {"station": station, "hour": hour, "celsius": self._measure(weather, hour)}
            for station in self.stations
            for hour in range(self.hours)
        ]

    @staticmethod
    def _measure(weather: random.Random, hour: int) -> float | None:
        luck = weather.random()
        if luck < 0.1:
            return None
        if luck < 0.12:
            return 999.0
        return round(10 - 6 * math.cos(hour / 24 * math.tau) + weather.gauss(0, 1), 2)
