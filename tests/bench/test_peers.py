"""The benchmark's own rules: who fails is told, tables rank, pictures are reproducible."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.errors import HpcAgentError
from tests.bench.__main__ import main
from tests.bench.peers import page, report, table
from tests.bench.peers.contest import of_runner, of_tasks
from tests.bench.peers.environment import requirements, versions
from tests.bench.peers.extent import QUICK
from tests.bench.peers.measures.launches import at_once
from tests.bench.peers.measures.reading import bytes_read, metadata_calls
from tests.bench.peers.plots import bars
from tests.bench.peers.report import report_of
from tests.bench.peers.rows import Row, exponent, missing, percentile, row_of
from tests.bench.peers.runners.runner import Place, RunTimes
from tests.bench.peers.session import turns
from tests.cluster import SlurmCluster

ROWS = [
    row_of("launch", "one at a time: first event", "our jobs", "s", [6.0, 5.0, 7.0]),
    row_of("launch", "one at a time: first event", "stock agent", "s", [3.0]),
    missing("launch", "one at a time: first event", "our pool", "Traceback\nKeyError: 'pools'\n"),
    row_of("gateway", "requests answered, 1 agent", "SQLite", "/s", [100.0]),
    row_of("gateway", "requests answered, 1 agent", "PostgreSQL", "/s", [200.0]),
]


class Silent:
    """A runner that takes runs and never ends one."""

    name = "silent"
    at_most: int | None = None

    def launch(self, job: str = "no_op", config: Mapping[str, Any] | None = None) -> str:
        return f"{job} {config}"

    def ended(self, run_ids: Collection[str]) -> set[str]:
        return set()

    def wait(self, run_ids: Sequence[str], *, seconds: float = 1.0) -> list[RunTimes]:
        raise HpcAgentError(f"{run_ids} do not end within {seconds} s")


class Bounded(Silent):
    """A runner that may have three runs, one of which ends at each look."""

    name = "bounded"
    at_most: int | None = 3

    def __init__(self) -> None:
        self.running: list[str] = []
        self.most = 0
        self._numbers = itertools.count()

    def launch(self, job: str = "no_op", config: Mapping[str, Any] | None = None) -> str:
        self.running.append(f"run {next(self._numbers)}")
        self.most = max(self.most, len(self.running))
        return self.running[-1]

    def ended(self, run_ids: Collection[str]) -> set[str]:
        return {self.running.pop(0)}

    def wait(self, run_ids: Sequence[str], *, seconds: float = 1.0) -> list[RunTimes]:
        now = time.time()
        return [
            RunTimes(launched=now, submitted=now, first_event=now, finished=now) for _ in run_ids
        ]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A directory, and a cluster that nobody asks."""
    cluster = SlurmCluster(
        slurm_conf="", environment={}, version="0", found="none", has_accounting=False
    )
    return Place(directory=tmp_path, cluster=cluster, extent=QUICK, say=lambda _: None)


def test_contestant_that_does_not_start_is_a_row(place: Place) -> None:
    """With its reason; what it was measured by is never called."""

    @contextlib.contextmanager
    def broken(own: Place) -> Iterator[Silent]:
        (own.directory / "missing").read_text()
        yield Silent()

    (row,) = of_runner("broken", broken, [], place)
    assert (row.contestant, row.median) == ("broken", None)
    assert "No such file" in row.reason


def test_measure_that_fails_leaves_the_others(place: Place) -> None:
    """One that ends with an error of any kind is a row among those of the others."""

    @contextlib.contextmanager
    def silent(_: Place) -> Iterator[Silent]:
        yield Silent()

    def ends(runner: Silent, _: Place) -> list[Row]:
        runner.wait([runner.launch()])
        return []

    def works(runner: Silent, _: Place) -> list[Row]:
        return [row_of("part", "measure", runner.name, "s", [1.0])]

    failed, worked = of_runner("silent", silent, [ends, works], place)
    assert "do not end" in failed.reason
    assert worked.median == 1.0


def test_processes_that_nothing_bounds_are_launched_as_others_end() -> None:
    """All of them; 1,000 at once would not leave the machine any memory."""
    runner = Bounded()
    *_, whole = at_once(runner, 7)
    assert whole.count == 7
    assert runner.most == 3


def test_tool_that_fails_is_a_row(place: Place) -> None:
    """The same for tools that run tasks."""

    def tasks(_: Place, count: int) -> float:
        raise RuntimeError(f"cannot run {count}")

    (row,) = of_tasks("tool", tasks, place)
    assert row.reason == f"cannot run {QUICK.tasks}"


def test_who_has_no_turn_is_told(place: Place) -> None:
    """A session that must end in time leaves nobody out silently."""

    def way(_: Place) -> list[Row]:
        return [row_of("part", "measure", "quick", "s", [1.0])]

    measured, busy = turns({"quick": way}, place, until=float("inf"))
    assert (measured.median, busy.part) == (1.0, "machine")
    (late,) = turns({"late": way}, place, until=0.0)
    assert (late.contestant, late.reason) == ("late", "no turn")


def test_table_ranks_by_what_is_better() -> None:
    """The fewest seconds, the most requests a second; who has no value comes last."""
    ranked = table.grouped(ROWS)
    names = [[row.contestant for row in members] for members in ranked.values()]
    assert names == [["stock agent", "our jobs", "our pool"], ["PostgreSQL", "SQLite"]]
    assert table.cells(ROWS[0], 3.0) == ["our jobs", "6 s", "7", "3", "2.0"]
    assert table.cells(ROWS[3], 200.0)[-1] == "2.0"
    assert "KeyError: 'pools'" in table.text(ROWS)


def test_page_says_where_we_lose() -> None:
    """Each measure in which somebody else is ahead of the best of ours, and by how much."""
    assert page.lost(table.grouped(ROWS).values()) == [
        "* launch, one at a time: first event: stock agent is better, our jobs 2.0 times as much"
    ]
    assert page.lost(table.grouped(ROWS[:1]).values()) == []


def test_page_is_written_from_a_file(tmp_path: Path) -> None:
    """Its JSON says all that the page needs; the pictures of the page are there."""
    made = report_of("quick", ROWS, slurm="24.11", busy=0.5)
    session = tmp_path / "session.json"
    session.write_text(json.dumps({"peers": report.content(made)}))
    (tmp_path / "pictures").mkdir()
    assert main(["--from", str(session), "--page", str(tmp_path / "benchmark.md")]) == 0
    written = (tmp_path / "benchmark.md").read_text()
    assert written == page.text(made)
    assert "pictures/benchmark-first-event.svg" in written
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == [
        "benchmark-first-event.svg"
    ]


def test_pictures_are_reproducible() -> None:
    """The same rows make the same bytes, with no date in them."""
    assert bars("launch", ROWS[:2]) == bars("launch", ROWS[:2])
    assert "<dc:date>" not in bars("launch", ROWS[:2])


def test_values_are_summed_up() -> None:
    """Nearest rank for percentiles; growth by the slope of logarithms."""
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0], 0.95) == 1.0
    assert exponent({1: 2.0, 10: 20.0, 100: 200.0}) == pytest.approx(1.0)
    assert row_of("p", "m", "c", "s", []).reason == "nothing was measured"


def test_peers_are_pinned() -> None:
    """To one version each, so that two sessions measure the same."""
    assert all("==" in word for words in requirements() for word in words)
    assert list(versions()) == ["submitit", "dask-jobqueue", "parsl", "hyperqueue"]


def test_calls_are_counted_in_a_trace() -> None:
    """Metadata calls and what was read, also where two processes were at it at once."""
    lines = [
        '12 openat(AT_FDCWD, "/a", O_RDONLY|O_CLOEXEC) = 3',
        '12 read(3, "\\177ELF"..., 832) = 832',
        '13 newfstatat(AT_FDCWD, "/b", 0x7ffe, 0) = -1 ENOENT (No such file or directory)',
        '13 pread64(3, "x"..., 64, 64) = 64',
        "12 read(3,  <unfinished ...>",
        '12 <... read resumed>"y"..., 100) = 100',
        "13 read(9, 0x55, 8) = -1 EAGAIN (Resource temporarily unavailable)",
    ]
    assert metadata_calls(lines) == 2
    assert bytes_read(lines) == 996
