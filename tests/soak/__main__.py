"""Attack relay, gateway and node program at once, for a while, and print what they take.

Of each process descriptors, threads, memory and disk are looked at under attack and after it. It
fails when one of them has grown between the end of the first round and that of the last, when there
are more under attack than the limits allow, or when a good request was not answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpc_agent.control_plane.process import STORAGE_THREADS
from hpc_agent.tls import tightened
from tests.relay.fake_control_plane import FakeControlPlane
from tests.relay.harness import HAS_RUN
from tests.soak.figures import Figures, Subject, excess, growth, table
from tests.soak.load import Door

QUERY = {"query": HAS_RUN, "variables": {"runId": "run-id-1"}}
# What a listener gives a stranger to take its answer, and some.
_CLOSING_SECONDS = 6.0

Looks = dict[Subject, list[tuple[str, Figures]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak and print its tables; 1 when something grows."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--size", type=int, default=200, help="connections of each kind")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a round")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="soak-") as directory, _control_plane() as fake:
        root = Path(directory)
        with _jobs(root / "jobs", fake) as jobs, _gateway(root / "home") as gateway:
            doors = [*jobs[0], gateway[0]]
            looks: Looks = {each: [] for each in (*jobs[1], gateway[1])}
            asyncio.run(_rounds(doors, looks, fake, options))
    return _report(doors, looks, size=options.size)


async def _rounds(
    doors: list[Door], looks: Looks, fake: FakeControlPlane, options: argparse.Namespace
) -> None:
    for door in doors:
        await door.warm_up()
    for number in range(1, options.rounds + 1):
        attacks = [
            asyncio.create_task(each.attack(size=options.size, seconds=options.seconds))
            for each in doors
        ]
        await asyncio.sleep(options.seconds * 0.8)
        _look(looks, f"attack {number}")
        await asyncio.gather(*attacks)
        await asyncio.sleep(_CLOSING_SECONDS)
        _look(looks, f"after {number}")
        fake.requests.clear()


def _look(looks: Looks, when: str) -> None:
    for subject, seen in looks.items():
        seen.append((when, subject.figures()))


def _report(doors: list[Door], looks: Looks, *, size: int) -> int:
    """Print everything; some of the looks where they are many."""
    wrong = []
    for subject, seen in looks.items():
        after = [figures for when, figures in seen if when.startswith("after")]
        found = growth(after[0], after[-1], pool=subject.pool)
        found += [each for _, figures in seen for each in excess(figures, known=size)]
        wrong += [f"{subject.name}: {each}" for each in found]
        every = max(1, len(seen) // 20) * 2 if len(seen) > 20 else 1
        print(table(subject.name, [*seen[:2], *seen[2:-2:every], *seen[-2:]]))
    for door in doors:
        wrong += [f"{door.name}: unanswered"] * door.outcomes["good: None"]
        print(f"{door.name}: " + ", ".join(f"{k} {n}" for k, n in sorted(door.outcomes.items())))
    print("\n".join(wrong) or "nothing has grown")
    return int(bool(wrong))


@contextlib.contextmanager
def _control_plane() -> Iterator[FakeControlPlane]:
    fake = FakeControlPlane()
    fake.start()
    yield fake
    fake.stop()


@contextlib.contextmanager
def _jobs(root: Path, fake: FakeControlPlane) -> Iterator[tuple[list[Door], list[Subject]]]:
    """Start a relay, and a node program with a child that waits."""
    argv = [sys.executable, "-m", "tests.soak.jobs", str(root), str(fake.port)]
    with _process(argv, root.with_suffix(".log")) as (process, told):
        certificate = json.loads((root / "work" / "relay.json").read_text())["certificate"]
        trust = tightened(ssl.create_default_context(cadata=certificate))
        trust.check_hostname = False
        doors = [
            Door("relay", told["relay"], told["token"], QUERY, trust),
            Door("node program", told["loopback"], told["token"], QUERY, None),
        ]
        jobs = root / "work" / "jobs"
        yield (
            doors,
            [
                Subject(name="relay", pid=process.pid, directories=(root / "state",)),
                Subject(name="node program", pid=told["node"], directories=(jobs,)),
            ],
        )


@contextlib.contextmanager
def _gateway(home: Path) -> Iterator[tuple[Door, Subject]]:
    """Start a control plane without webserver and daemon."""
    command = [sys.executable, "-m", "hpc_agent", "control-plane"]
    alone = ["--port", "0", "--no-webserver", "--no-daemon", "--json"]
    argv = [*command, "start", "--home", str(home), *alone]
    with _process(argv, home.with_suffix(".log")) as (process, told):
        made = subprocess.run(
            [*command, "token", "create", "--home", str(home), "--json"],
            capture_output=True,
            check=True,
        )
        port = int(told["api"].rpartition(":")[2])
        trust = tightened(ssl.create_default_context(cafile=told["ca"]))
        good = {"query": "query { __typename }"}
        door = Door("gateway", port, json.loads(made.stdout)["token"], good, trust)
        yield (
            door,
            Subject(name="gateway", pid=process.pid, directories=(home,), pool=STORAGE_THREADS),
        )


@contextlib.contextmanager
def _process(argv: list[str], log: Path) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """Start a process that tells a line of JSON, and end it."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(log.read_text())
        yield process, json.loads(line)
        lines = len(log.read_text().splitlines())
        print(f"{argv[2]}: {lines} lines of log")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(code)
