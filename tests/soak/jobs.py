"""A relay and one job of it, as a process: ``python -m tests.soak.jobs DIRECTORY PORT``.

``PORT`` is that of the fake control plane. Prints a line of JSON, and ends at SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

from hpc_agent.descriptors import raise_descriptor_limit
from tests.relay.fake_control_plane import FakeControlPlane
from tests.relay.harness import Cluster, python, waiting

_LONGER_THAN_ANY_SOAK_SECONDS = 6 * 3600


async def serve(root: Path, port: int) -> None:
    """Run both until SIGTERM."""
    cluster = Cluster(root, FakeControlPlane(port=port))
    job = cluster.job(argv=python(waiting(_LONGER_THAN_ANY_SOAK_SECONDS)))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    try:
        async with cluster.relay() as relay, cluster.loopback(job) as client:
            told = {
                "relay": relay.port,
                "loopback": client.base_url.port,
                "node": cluster.nodes[0].process.pid,
                "token": cluster.token(job.key),
            }
            print(json.dumps(told), flush=True)
            await ended.wait()
    finally:
        await cluster.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    raise_descriptor_limit()
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
