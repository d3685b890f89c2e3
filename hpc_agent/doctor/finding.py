"""What a check found, in words: the fact, and what to do about it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Status(enum.Enum):
    """How serious a finding is; only a PROBLEM keeps the agent from doing its work."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of fact, and for anything but OK what to do, or why it was skipped."""

    status: Status
    fact: str
    advice: str = ""


def ok(fact: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(Status.OK, fact)


def warning(fact: str, advice: str) -> Finding:
    """Return a finding that an administrator should know."""
    return Finding(Status.WARNING, fact, advice)


def problem(fact: str, advice: str) -> Finding:
    """Return a finding with which the agent cannot do its work."""
    return Finding(Status.PROBLEM, fact, advice)


def skipped(reason: str) -> Finding:
    """Return what stands for a finding when a check could not be made."""
    return Finding(Status.SKIPPED, reason)
