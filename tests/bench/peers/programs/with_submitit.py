"""No-op functions by submitit, as one job array."""

import json
import sys
import time

import submitit


def nothing(number: int) -> int:
    """Do nothing."""
    return number


def main(count: int, directory: str) -> None:
    """Print the seconds from the submission to the last result."""
    executor = submitit.AutoExecutor(folder=f"{directory}/submitit", cluster="slurm")
    executor.update_parameters(
        timeout_min=10, cpus_per_task=1, mem_gb=0.2, slurm_array_parallelism=1000
    )
    began = time.monotonic()
    jobs = executor.map_array(nothing, range(count))
    results = [job.result() for job in jobs]
    seconds = time.monotonic() - began
    assert results == list(range(count))
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
