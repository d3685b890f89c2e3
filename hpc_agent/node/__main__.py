"""Run the node program: ``python3 node.pyz JOBDIR``.

``--forward``, ``--stacks`` and ``--template`` are others.
"""

from __future__ import annotations

import contextlib
import os
import sys

from .pack import Pack
from .program import NodeProgram
from .spec import PACK, POOL, SpecError, read_spec


def _forward(settings: str) -> int:
    from .forwarder import run  # asyncio is not for every job to import

    return run(settings)


def _stacks(key: str) -> int:
    from .stacks import run

    return run(key)


def _template(file: str) -> int:
    from .pool.template import run

    return run(file)


_OTHERS = {"--forward": _forward, "--stacks": _stacks, "--template": _template}


def main() -> int:
    """Do what the command line says; return the exit code."""
    if len(sys.argv) == 3 and sys.argv[1] in _OTHERS:
        return _OTHERS[sys.argv[1]](sys.argv[2])
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python3 node.pyz JOBDIR\n")
        return 2
    return _supervise(os.path.abspath(sys.argv[1]))


def _supervise(job_dir: str) -> int:
    """Supervise the job of a directory; return its exit code."""
    # Everything this program writes belongs to its user alone: stdout and stderr hold user data.
    os.umask(0o077)
    try:
        spec = read_spec(job_dir)
        if spec.kind == PACK:
            return Pack(job_dir, spec).run()
        if spec.kind == POOL:
            from .pool.supervisor import Supervisor

            return Supervisor(job_dir, spec).run()
        return NodeProgram(job_dir, spec).run()
    except SpecError as error:
        with contextlib.suppress(OSError):  # a full disk
            os.write(2, ("hpc-agent node: %s\n" % error).encode("utf-8", "backslashreplace"))
        return 2


if __name__ == "__main__":
    sys.exit(main())
