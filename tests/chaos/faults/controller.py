"""Faults of Slurm's daemons that know: slurmctld and slurmdbd."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from random import Random

from tests.chaos.bed import Bed
from tests.chaos.fault import Fault, HasStruck, Inject, at_once
from tests.chaos.ledger import Expected

GROUP = "Slurm's controller and accounting are away"


def _killed(daemon: str) -> Inject:
    @contextlib.contextmanager
    def inject(bed: Bed, _random: Random) -> Iterator[HasStruck]:
        bed.slurm.kill(daemon)
        try:
            yield at_once
        finally:
            bed.slurm.up()

    return inject


def _frozen(daemon: str) -> Inject:
    @contextlib.contextmanager
    def inject(bed: Bed, _random: Random) -> Iterator[HasStruck]:
        bed.slurm.signal(daemon, signal.SIGSTOP)
        try:
            yield at_once
        finally:
            bed.slurm.signal(daemon, signal.SIGCONT)

    return inject


@contextlib.contextmanager
def _killed_when_saved(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    bed.slurm.await_saving()
    with _killed("slurmctld")(bed, _random) as has_struck:
        yield has_struck


@contextlib.contextmanager
def _restarted(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    bed.slurm.signal("slurmctld", signal.SIGTERM)
    try:
        yield at_once
    finally:
        bed.slurm.up()


@contextlib.contextmanager
def _forgetful(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    """Lose the controller's state. Ids begin again at 1, and strangers get those of our jobs."""
    bed.slurm.kill("slurmctld")
    try:
        yield at_once
    finally:
        bed.slurm.forget()
        bed.slurm.up()
        bed.invite_strangers(12)


FAULTS = [
    Fault(
        name="slurmctld restarted",
        group=GROUP,
        outlasted=True,
        text="ended in good order, started again 10 s later",
        inject=_restarted,
        hold_seconds=10,
    ),
    Fault(
        name="slurmctld killed",
        group=GROUP,
        outlasted=True,
        text="kill -9, started again 15 s later; its nodes end jobs that it had not saved",
        inject=_killed("slurmctld"),
        hold_seconds=15,
        expected=Expected(may_be_cut=True),
        short=True,
        spoils=True,
    ),
    Fault(
        name="slurmctld killed when saved",
        group=GROUP,
        outlasted=True,
        text="kill -9 right after it has saved its jobs, started again 15 s later",
        inject=_killed_when_saved,
        hold_seconds=15,
    ),
    Fault(
        name="slurmctld frozen",
        group=GROUP,
        outlasted=True,
        text="mute for 40 s: submissions and queries time out, and are executed afterwards",
        inject=_frozen("slurmctld"),
        hold_seconds=40,
    ),
    Fault(
        name="slurmctld forgets",
        group=GROUP,
        text="killed, and its state is lost: its jobs are gone, and their ids become strangers'",
        inject=_forgetful,
        hold_seconds=3,
        expected=Expected(may_be_cut=True),
        patience_seconds=240,
        spoils=True,
    ),
    Fault(
        name="slurmdbd killed",
        group=GROUP,
        outlasted=True,
        text="kill -9, started again 20 s later",
        inject=_killed("slurmdbd"),
        hold_seconds=20,
    ),
    Fault(
        name="slurmdbd frozen",
        group=GROUP,
        outlasted=True,
        text="mute for 30 s",
        inject=_frozen("slurmdbd"),
        hold_seconds=30,
    ),
]
