"""scancel(1): end jobs, or send them a signal."""

from __future__ import annotations

from collections.abc import Sequence


def cancel_arguments(job_id: str, *, name: str | None = None) -> list[str]:
    """Build the command that ends a job in whatever state it is, with a name only if it has that.

    Not for a task of an array with a name: ``scancel --name=NAME 17_3`` ends all tasks that wait
    (22.05 to 26.05: the filter chooses records, and tasks that wait share one).
    """
    return ["scancel", *([] if name is None else [f"--name={name}"]), job_id]


def cancel_all_arguments(job_ids: Sequence[str]) -> list[str]:
    """Build the command that ends jobs, and tasks of arrays, in whatever state each is."""
    return ["scancel", *job_ids]


def signal_arguments(job_id: str, signal: str) -> list[str]:
    """Build the command that signals the batch script's process only, not its steps."""
    return ["scancel", "--batch", f"--signal={signal}", job_id]
