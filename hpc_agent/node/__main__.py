"""Run the node program: ``python3 node.pyz JOBDIR``."""

from __future__ import annotations

import os
import sys

from .program import NodeProgram
from .spec import SpecError


def main() -> int:
    """Supervise the job of the directory named on the command line; return its exit code."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python3 node.pyz JOBDIR\n")
        return 2
    # Everything this program writes belongs to its user alone: stdout and stderr hold user data.
    os.umask(0o077)
    try:
        return NodeProgram(sys.argv[1]).run()
    except SpecError as error:
        sys.stderr.write("hpc-agent node: %s\n" % error)
        return 2


if __name__ == "__main__":
    sys.exit(main())
