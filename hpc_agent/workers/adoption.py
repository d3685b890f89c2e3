"""Jobs of ours that nobody knows of yet: a mute controller has carried out an old request, or the
answer of sbatch was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from sqlite_utils import Database

from hpc_agent.slurm.scheduler import JobRecord
from hpc_agent.store import jobs, workers
from hpc_agent.store.workers import Worker


@dataclass(frozen=True, slots=True)
class Adopted:
    """A job, and whose it is."""

    worker_key: str
    job_id: str


def find(db: Database, records: Iterable[JobRecord]) -> list[Adopted]:
    """Return whose jobs these are; those of nobody here are left out."""
    found = []
    for record in records:
        worker = _worker_of(db, record)
        if worker is None or worker.pack_key is not None:
            continue
        if jobs.live_of(db, worker.key, record.job_id) is None:
            found.append(Adopted(worker.key, record.job_id))
    return found


def keys_of(record: JobRecord) -> Iterator[str]:
    """Yield what may be the key of a submission, of the places that hold one.

    The working directory is none of them: what user code itself submits from there, by
    ``sbatch --wrap`` for instance, is not ours to cancel.
    """
    yield record.comment
    yield record.name.removeprefix("hpc-agent:")
    if record.script:
        yield PurePosixPath(record.script).parent.name


def _worker_of(db: Database, record: JobRecord) -> Worker | None:
    for key in keys_of(record):
        alone = workers.find(db, key) if key else None
        if alone is not None:
            return alone
        index = record.job_id.partition("_")[2]
        task = workers.task(db, key, int(index)) if key and index.isdecimal() else None
        if task is not None:
            return task
    return None
