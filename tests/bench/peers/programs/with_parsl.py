"""No-op functions by parsl's HighThroughputExecutor: two blocks of four workers on Slurm."""

import json
import sys
import time

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import SlurmProvider


@parsl.python_app
def nothing(number: int) -> int:
    """Do nothing."""
    return number


def main(count: int, directory: str) -> None:
    """Print the seconds from asking for blocks to the last result."""
    provider = SlurmProvider(
        partition="debug",
        nodes_per_block=1,
        cores_per_node=4,
        mem_per_node=2,
        init_blocks=2,
        max_blocks=2,
        exclusive=False,
        walltime="00:10:00",
        launcher=SimpleLauncher(),
    )
    executor = HighThroughputExecutor(
        label="slurm", address="127.0.0.1", max_workers_per_node=4, provider=provider
    )
    began = time.monotonic()
    with parsl.load(Config(executors=[executor], run_dir=f"{directory}/parsl")):
        results = [future.result() for future in [nothing(number) for number in range(count)]]
        seconds = time.monotonic() - began
    assert results == list(range(count))
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
