"""Commands by HyperQueue: its server and worker in one job of four cores.

The package on PyPI has the client and a cluster within one process; the program ``hq``, whose
workers may be in several jobs, is not in it.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

CORES = 4


def main(count: int, directory: str) -> None:
    """Submit this file as a job, and print the seconds until its last task is over."""
    began = time.monotonic()
    options = ["--wait", f"--cpus-per-task={CORES}", "--mem=2G", "--time=10"]
    output = Path(directory) / "hyperqueue.out"
    subprocess.run(
        [
            "sbatch",
            *options,
            f"--output={output}",
            f"--wrap=exec {sys.executable} {__file__} {count}",
        ],
        check=True,
        capture_output=True,
    )
    ended = json.loads(output.read_text().splitlines()[-1])["ended"]
    print(json.dumps({"seconds": ended - began}))


def in_the_job(count: int) -> None:
    """Run the tasks, and print when the last was over, by the clock of the machine."""
    from hyperqueue import Job, LocalCluster
    from hyperqueue.cluster import WorkerConfig

    with LocalCluster(worker_config=WorkerConfig(cores=CORES)) as cluster:
        client = cluster.client()
        job = Job()
        for _ in range(count):
            job.program(["/bin/true"])
        client.wait_for_jobs([client.submit(job)])
        print(json.dumps({"ended": time.monotonic()}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(int(sys.argv[1]), sys.argv[2])
    else:
        in_the_job(int(sys.argv[1]))
