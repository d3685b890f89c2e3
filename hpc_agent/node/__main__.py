"""Run the node program: ``python3 node.pyz JOBDIR``; ``--forward`` and ``--stacks`` are others."""

from __future__ import annotations

import contextlib
import os
import sys

from .pack import Pack
from .program import NodeProgram
from .spec import PACK, SpecError, read_spec


def main() -> int:
    """Supervise the job of the directory named on the command line; return its exit code."""
    if len(sys.argv) == 3 and sys.argv[1] == "--forward":
        from .forwarder import run  # asyncio is not for every job to import

        return run(sys.argv[2])
    if len(sys.argv) == 3 and sys.argv[1] == "--stacks":
        from .stacks import run as run_stacks

        return run_stacks(sys.argv[2])
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python3 node.pyz JOBDIR\n")
        return 2
    # Everything this program writes belongs to its user alone: stdout and stderr hold user data.
    os.umask(0o077)
    try:
        job_dir = os.path.abspath(sys.argv[1])
        spec = read_spec(job_dir)
        if spec.kind == PACK:
            return Pack(job_dir, spec).run()
        return NodeProgram(job_dir, spec).run()
    except SpecError as error:
        with contextlib.suppress(OSError):  # a full disk
            os.write(2, ("hpc-agent node: %s\n" % error).encode("utf-8", "backslashreplace"))
        return 2


if __name__ == "__main__":
    sys.exit(main())
