"""How many files this process may open: as many as it may, its children as many as before.

sbatch hands the soft limits of its caller on to the job (slurm.conf(5), PropagateResourceLimits),
and programs of old go through all descriptors that they might have.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence

# No preexec_fn: with it subprocess forks, which takes this process 6 ms at 100 MB, and vfork(2) 1.
_RESTORE = ("/bin/sh", "-c", 'ulimit -S -n "$0" && exec "$@"')
_given: list[int] = []


def raise_descriptor_limit() -> None:
    """Raise the soft limit of this process to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _given.append(soft)


def descriptor_limit() -> int:
    """Return how many descriptors this process may have now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def as_given(argv: Sequence[str]) -> list[str]:
    """Return what runs a command with the limit that this process itself was started with."""
    return [*_RESTORE, str(_given[0]), *argv] if _given else list(argv)
