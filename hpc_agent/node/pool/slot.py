"""One member in its slot: the node program of its job directory, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import traceback
from typing import Dict, Sequence

from ..child import death_with
from ..descendants import adopt_orphans
from ..job_files import open_output
from ..journal import log
from ..limits import Limits
from ..program import EX_SOFTWARE, NodeProgram
from ..spec import Slot, SpecError, read_spec
from .descriptors import take_over
from .forked import WarmStart

# Of one member: more is taken for a fork bomb. Threads do not count.
MOST_PROCESSES = 512


class SlotProgram:
    """What a member's process does."""

    def __init__(
        self, job_dir: str, slot: Slot, cpus: Sequence[int], environment: Dict[str, str]
    ) -> None:
        self._job_dir = job_dir
        self._slot = slot
        self._cpus = cpus
        self._environment = environment

    def start(self, look_seconds: float) -> "tuple[int, socket.socket]":
        """Fork it; return its process, and the end of a connection on which it asks for offers.

        Raises OSError.
        """
        ours, its = socket.socketpair()
        die_with = death_with(os.getpid())
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            its.close()
            raise
        if pid == 0:
            code = EX_SOFTWARE
            try:
                die_with()
                self._take_over(its)
                code = self._run(its, look_seconds)
            except BaseException:  # noqa: BLE001  (nothing of the supervisor is to run here)
                traceback.print_exc()
            finally:
                os._exit(code)
        its.close()
        return pid, ours

    def _take_over(self, ask: socket.socket) -> None:
        """Leave to the supervisor what is its own."""
        os.setpgid(0, 0)
        output = open_output(os.path.join(self._job_dir, "slurm.out"))
        take_over([output, output], [ask.fileno()])
        os.chdir(self._job_dir)
        os.environ.update(self._environment)
        adopt_orphans()

    def _run(self, ask: socket.socket, look_seconds: float) -> int:
        try:
            spec = read_spec(self._job_dir)
            if self._cpus:
                with contextlib.suppress(OSError):  # taken from the allocation meanwhile
                    os.sched_setaffinity(0, self._cpus)
            memory = spec.memory_limit_mb or self._slot.memory_mb
            return NodeProgram(
                self._job_dir,
                spec,
                WarmStart(spec.template, self._cpus, ask),
                Limits(memory, MOST_PROCESSES, look_seconds),
            ).run()
        except SpecError as error:
            log(str(error))
            return 2
