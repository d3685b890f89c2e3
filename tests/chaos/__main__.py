"""Inject faults into a whole Dagster on Slurm, and compare what it says with what was executed."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.bed import Bed
from tests.chaos.catalogue import FAULTS, named
from tests.chaos.fault import Fault
from tests.chaos.page import page
from tests.chaos.session import MakeBed, Session, Teller, rounds_of
from tests.chaos.stock import StockBed
from tests.chaos.table import Row, markdown, total

ROUND = 12
SHORT_RUNS, FULL_RUNS = 4, 11
MIXES = 5
"""How much more often the mix is played than a single fault."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the faults, print the table; 1 when anything went wrong."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _end)
    say = Teller()
    logs = options.logs or Path(tempfile.mkdtemp(prefix="chaos-logs-"))
    play = _player(options, logs, say)
    faults = _chosen(options)
    if options.stock:
        rows = play("stock", StockBed, [fault for fault in faults if fault.stock])
    else:
        rows = play("hpc-agent", Bed, faults)
    if options.page is not None:
        stock = play("stock", StockBed, [fault for fault in faults if fault.stock])
        options.page.write_text(page(faults, rows, stock, seed=options.seed))
        say(f"written: {options.page}")
    if options.json:
        json.dump([row.as_json() for row in rows], sys.stdout, indent=1)
    else:
        sys.stdout.write(markdown([*rows, total(rows)]))
    return 0 if all(row.is_clean for row in rows) else 1


def _read(results: Path) -> list[Row]:
    content = json.loads(results.read_text()) if results.exists() else []
    return [Row.from_json(cells) for cells in content]


def _write(results: Path, rows: Sequence[Row]) -> None:
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps([row.as_json() for row in rows], indent=1))


def _end(_number: int, _frame: object) -> None:
    """Leave by an exception, so that everything that was started is ended."""
    raise SystemExit(143)


Play = Callable[[str, MakeBed, Sequence[Fault]], list[Row]]


def _player(options: argparse.Namespace, logs: Path, say: Teller) -> Play:
    runs = options.runs or (FULL_RUNS if options.full else SHORT_RUNS)

    def play(name: str, make: MakeBed, faults: Sequence[Fault]) -> list[Row]:
        results = logs / f"{name}.json"
        done = _read(results) if options.resume else []
        names = {row.name for row in done}
        left = [fault for fault in faults if fault.name not in names]
        say(f"{name}: {len(left)} faults, {runs} runs each, seed {options.seed}; logs: {logs}")
        if not left:
            return done
        with Session(make, seed=options.seed, say=say, logs=logs / name) as session:
            for fault in left:
                count = runs * (MIXES if options.full and fault.name == "mix" else 1)
                for number, size in enumerate(rounds_of(count, ROUND)):
                    session.play(fault, runs=size, number=number)
                session.finish()
                _write(results, [*done, *session.rows()])
        order = {fault.name: place for place, fault in enumerate(FAULTS)}
        return sorted(_read(results), key=lambda row: order[row.name])

    return play


def _chosen(options: argparse.Namespace) -> list[Fault]:
    if options.fault:
        return named(options.fault)
    return [fault for fault in FAULTS if options.full or fault.short]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--full", action="store_true", help="all faults, with many runs each")
    parser.add_argument("--stock", action="store_true", help="against the stock agent instead")
    parser.add_argument(
        "--fault", action="append", choices=[fault.name for fault in FAULTS], metavar="NAME",
        help="only this one; may be repeated",
    )  # fmt: skip
    parser.add_argument("--runs", type=int, help="runs of each fault")
    parser.add_argument("--seed", type=int, default=1, help="what is drawn by lot is drawn from it")
    parser.add_argument("--logs", type=Path, help="where logs are kept (default: a new directory)")
    parser.add_argument(
        "--resume", action="store_true", help="leave out the faults whose rows --logs has already"
    )
    parser.add_argument("--page", type=Path, help="also run the stock agent, and write this page")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
