"""No-op functions by dask-jobqueue: two jobs of four workers, which take tasks."""

import json
import sys
import time

from dask_jobqueue import SLURMCluster
from distributed import Client


def nothing(number: int) -> int:
    """Do nothing."""
    return number


def main(count: int, directory: str) -> None:
    """Print the seconds from asking for workers to the last result."""
    began = time.monotonic()
    with (
        SLURMCluster(
            cores=4,
            processes=4,
            memory="2GB",
            walltime="00:10:00",
            local_directory=f"{directory}/dask",
            log_directory=f"{directory}/dask-logs",
            scheduler_options={"host": "127.0.0.1", "dashboard_address": None},
        ) as cluster,
        Client(cluster) as client,
    ):
        cluster.scale(jobs=2)
        results = client.gather(client.map(nothing, range(count), pure=False))
        seconds = time.monotonic() - began
        assert results == list(range(count))
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
