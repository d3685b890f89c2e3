"""Dagster's own storage suites, on its plain storages and through the stock client's.

Fails when a test passes on plain storage but not through the gateway, and no line of the client
makes that impossible (reasons.py).
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.postgres import NoPostgresError, PostgresServer, find_binaries, running_server
from tests.storage_suites.comparison import BAD, Compared, compare, table
from tests.storage_suites.outcomes import NoOutcomesError, run
from tests.storage_suites.sdist import NoSdistError, fetched
from tests.storage_suites.side import Database, Side, Storage

NO_SDIST = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare on each database; 1 when the gateway falls short, 3 without the suites."""
    parser = argparse.ArgumentParser(prog="make storage-suites", description=__doc__)
    parser.add_argument("--database", choices=[each.value for each in Database], action="append")
    parser.add_argument("--only", default="", metavar="EXPRESSION", help="as pytest's -k")
    options = parser.parse_args(arguments)
    databases = [Database(each) for each in options.database or Database]
    try:
        sdist = fetched()
    except NoSdistError as reason:
        print(f"SKIPPED storage suites: {reason}")
        return NO_SDIST
    found: list[Compared] = []
    try:
        for database in databases:
            found += _compared(database, sdist, options.only)
            print(f"{database}: compared", file=sys.stderr, flush=True)
    except (NoOutcomesError, NoPostgresError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(table(found)))
    return int(not found or any(each.verdict in BAD for each in found))


def _compared(database: Database, sdist: Path, only: str) -> list[Compared]:
    """Run both sides at once: most tests wait for the disk, or for the clock."""
    with (
        tempfile.TemporaryDirectory(prefix="storage-suites-") as directory,
        _urls(database) as urls,
        ThreadPoolExecutor(len(Storage)) as pool,
    ):
        plain, gateway = pool.map(
            lambda storage, url: run(Side(storage, database), sdist, url, only, Path(directory)),
            Storage, urls,
        )  # fmt: skip
    return compare(database, plain, gateway)


@contextlib.contextmanager
def _urls(database: Database) -> Iterator[Sequence[str | None]]:
    """Make a database for each kind of storage."""
    if database is Database.SQLITE:
        yield [None for _ in Storage]
        return
    binaries = find_binaries()
    # Not below another user's directory: PostgreSQL does not run as root.
    directory = Path(tempfile.mkdtemp(prefix="storage-suites-pg-"))
    try:
        with running_server(binaries, directory) as server:
            yield _made(server)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _made(server: PostgresServer) -> list[str]:
    return [server.create_database() for _ in Storage]


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(code)
