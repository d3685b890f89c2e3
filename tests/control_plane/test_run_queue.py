"""A run in the queue is seen at once: the coordinator rings, and the daemon's queue listens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import pytest
from dagster._core.run_coordinator import SubmitRunContext
from dagster._daemon.daemon import DaemonIterator

from hpc_agent.control_plane.gateway import Gateway
from hpc_agent.control_plane.run_coordinator import RingingRunCoordinator
from hpc_agent.control_plane.stock_daemon import RungRunCoordinatorDaemon
from hpc_agent.doorbell import ring, waited_for
from tests.control_plane.definitions import new_run


async def test_whoever_enqueues_a_run_rings(gateway: Gateway) -> None:
    """By the coordinator of a fresh dagster.yaml; the run is in the queue by then."""
    instance = gateway.services.instance
    assert isinstance(instance.run_coordinator, RingingRunCoordinator)
    run = new_run(instance, dg.DagsterRunStatus.NOT_STARTED)
    with waited_for(Path(instance.root_directory)) as wait:
        assert not wait(0)
        context = SubmitRunContext(run, workspace=cast("Any", None))
        instance.run_coordinator.submit_run(context)
        assert wait(5)
    enqueued = instance.get_run_by_id(run.run_id)
    assert enqueued is not None
    assert enqueued.status is dg.DagsterRunStatus.QUEUED


class Counting(RungRunCoordinatorDaemon):
    """Counts its looks, and launches nothing; the second one fails."""

    def __init__(self) -> None:
        super().__init__(interval_seconds=300)
        self.looked = threading.Semaphore(0)
        self._looks = 0

    def run_iteration(self, *_: Any, **__: Any) -> DaemonIterator:
        self._looks += 1
        self.looked.release()
        if self._looks == 2:
            raise RuntimeError("the database is locked")
        yield None


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Counting]:
    """A queue that looks every five minutes, in a thread as the daemon has it."""
    daemon, stop = Counting(), threading.Event()
    context = SimpleNamespace(instance=SimpleNamespace(root_directory=str(tmp_path)))

    def run() -> None:
        for _ in daemon.core_loop(cast("Any", context), stop):
            if stop.is_set():
                return

    thread = threading.Thread(target=run)
    thread.start()
    yield daemon
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_the_queue_looks_when_somebody_rings(daemon: Counting, tmp_path: Path) -> None:
    """Again and again, also after a look that failed; and it stops when it is told to."""
    for _ in range(4):
        assert daemon.looked.acquire(timeout=10)
        ring(tmp_path)
