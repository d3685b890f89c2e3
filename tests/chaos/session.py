"""A session: rounds of one fault after another on one bed, told as they go."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Self

from hpc_agent.errors import HpcAgentError
from tests.chaos.bed import Bed
from tests.chaos.fault import Fault
from tests.chaos.ledger import Finding, Problem
from tests.chaos.round import Outcome, Round, late_findings
from tests.chaos.table import Row, row_of

BROKEN = (HpcAgentError, OSError, RuntimeError, subprocess.SubprocessError)
"""What a round raises on a bed on which nothing works any more."""

Say = Callable[[str], None]
MakeBed = Callable[[Path, Say], Bed]


class Teller:
    """Says where the work is, with the seconds since it began."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        """Say one line on stderr."""
        print(f"[{time.monotonic() - self._began:6.1f}] {text}", file=sys.stderr, flush=True)


@contextmanager
def made_bed(make: MakeBed, say: Say, logs: Path) -> Iterator[Bed]:
    """Start a bed, and end all of it again; its logs are kept."""
    # Not below a long path: a unix socket's may have 108 characters.
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    bed = make(directory, say)
    try:
        bed.start()
        yield bed
    finally:
        bed.close()
        _keep_logs(bed, logs)
        shutil.rmtree(directory, ignore_errors=True)


class Session:
    """Plays rounds and collects what came of them; replaces a bed on which nothing works."""

    def __init__(self, make: MakeBed, *, seed: int, say: Say, logs: Path) -> None:
        self.outcomes: dict[str, list[Outcome]] = defaultdict(list)
        self._make = make
        self._seed = seed
        self._say = say
        self._logs = logs
        self._beds = 0
        self._last = ""
        self._of_this_bed: list[tuple[str, int]] = []
        self._stack = ExitStack()
        self._bed: Bed

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def play(self, fault: Fault, *, runs: int, number: int = 0) -> Outcome:
        """Play one round."""
        began = time.monotonic()
        outcome = self._play(fault, runs, number)
        self._of_this_bed.append((fault.name, len(self.outcomes[fault.name])))
        self.outcomes[fault.name].append(outcome)
        self._last = fault.name
        mark = "ok " if not outcome.problems and outcome.struck else "BAD"
        aside = "" if outcome.struck else ", did not strike"
        took = time.monotonic() - began
        slowest = max(outcome.recoveries, default=0.0)
        self._say(
            f"{mark} {fault.name}: {runs} runs in {took:.0f} s, recovery {slowest:.0f} s{aside}"
        )
        self._tell(outcome)
        if fault.spoils:
            self._renew()
        return outcome

    def finish(self) -> None:
        """Look once more at all runs of this bed: a late duplicate may have executed one again."""
        for name, number in self._of_this_bed:
            outcome = self.outcomes[name][number]
            late = late_findings(self._bed, outcome)
            if late:
                self._say(f"BAD {name}: later")
                self.outcomes[name][number] = replace(outcome, problems=[*outcome.problems, *late])
                self._tell(replace(outcome, problems=late))

    def rows(self) -> list[Row]:
        """Return the rows of the table so far."""
        return [row_of(name, outcomes) for name, outcomes in self.outcomes.items()]

    @property
    def logs(self) -> Path:
        """Where the logs of this bed are kept."""
        return self._logs / str(self._beds)

    def _open(self) -> None:
        self._beds += 1
        self._bed = self._stack.enter_context(made_bed(self._make, self._say, self.logs))

    def _renew(self) -> None:
        self.finish()
        self._of_this_bed = []
        self._stack.close()
        self._open()

    def _play(self, fault: Fault, runs: int, number: int) -> Outcome:
        random = Random(f"{self._seed} {fault.name} {number}")  # noqa: S311 - to be repeated
        try:
            return Round(self._bed, fault, runs=runs, random=random).play()
        except BROKEN as error:
            self._say(f"BAD after {self._last or 'the start'}: {error}; making a new bed")
            self._blame(str(error))
            self._renew()
            return self._play_again(fault, runs, random)

    def _play_again(self, fault: Fault, runs: int, random: Random) -> Outcome:
        """Play a round on a fresh bed; what fails there too is the fault's own."""
        try:
            return Round(self._bed, fault, runs=runs, random=random).play()
        except BROKEN as error:
            problem = Problem(run_id="", finding=Finding.STUCK, text=f"cannot be played: {error}")
            return Outcome(fault=fault, run_ids=[], struck=False, problems=[problem], recoveries=[])

    def _blame(self, text: str) -> None:
        """Note with the round before that nothing works after it."""
        if self._last:
            outcome = self.outcomes[self._last][-1]
            problem = Problem(run_id="", finding=Finding.STUCK, text=f"afterwards: {text}")
            problems = [*outcome.problems, problem]
            self.outcomes[self._last][-1] = replace(outcome, problems=problems)

    def _tell(self, outcome: Outcome) -> None:
        for problem in outcome.problems:
            self._say(f"    {problem.finding.value}: run {problem.run_id or '-'} {problem.text}")
            for kind, message in outcome.events.get(problem.run_id, []):
                self._say(f"        {kind}: {message.splitlines()[0][:160] if message else ''}")
        if outcome.problems:
            self._say(f"    logs: {self.logs}")


def rounds_of(runs: int, size: int) -> Sequence[int]:
    """Split so many runs into rounds of about this size."""
    count = max(1, round(runs / size))
    return [runs // count + (number < runs % count) for number in range(count)]


def _keep_logs(bed: Bed, logs: Path) -> None:
    logs.mkdir(parents=True, exist_ok=True)
    shutil.copytree(bed.logs, logs, dirs_exist_ok=True)
    shutil.copy(bed.ledger, logs / "ledger")
    slurm = bed.directory / "slurm" / "log"
    if slurm.exists():
        shutil.copytree(slurm, logs / "slurm", dirs_exist_ok=True)
