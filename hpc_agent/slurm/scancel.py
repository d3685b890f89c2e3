"""scancel(1): end jobs, or send them a signal."""

from __future__ import annotations


def cancel_arguments(job_id: str) -> list[str]:
    """Build the command that ends a job in whatever state it is."""
    return ["scancel", job_id]


def signal_arguments(job_id: str, signal: str) -> list[str]:
    """Build the command that signals the batch script's process only, not its steps."""
    return ["scancel", "--batch", f"--signal={signal}", job_id]
