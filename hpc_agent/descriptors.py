"""How many files this process may open: as many as it may, its children as many as before.

sbatch hands the soft limits of its caller on to the job (slurm.conf(5), PropagateResourceLimits),
and programs of old go through all descriptors that they might have.
"""

from __future__ import annotations

import functools
import resource
from collections.abc import Callable

_given: list[tuple[int, int]] = []


def raise_descriptor_limit() -> None:
    """Raise the soft limit of this process to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _given.append((soft, hard))


def descriptor_limit() -> int:
    """Return how many descriptors this process may have now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def as_given() -> Callable[[], None] | None:
    """Return what gives a child the limit that this process was started with: its preexec_fn.

    It calls setrlimit(2) and takes no lock, so that threads of this process do not matter to it.
    None as long as nothing was raised: then subprocess can use vfork(2).
    """
    if not _given:
        return None
    return functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, _given[0])
