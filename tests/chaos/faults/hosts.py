"""Faults of the machine: its network, its clock, and agents that meet each other."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.chaos.bed import Bed
from tests.chaos.fault import Fault, HasStruck, Inject, at_once
from tests.chaos.keeper import Keeper
from tests.chaos.slurm import until

GROUP = "the machine, its clock, and other agents"
_TABLE = f"hpc_agent_chaos_{os.getpid()}"
_RULES = """table inet {table} {{
  chain input {{
    type filter hook input priority 0;
    iifname "lo" tcp dport {port} drop;
  }}
}}
"""
_ELSEWHERE = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh")
_CONNECTED = b"connected to"
_TAKE_OVER_SECONDS = 100
FAKETIME = tuple(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


@contextlib.contextmanager
def _relay_unreachable(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    """Drop what goes to the relay's port: connections hang, as behind a firewall."""
    addresses = json.loads((bed.work / "relay.json").read_text())["addresses"]
    port = addresses[0].rpartition(":")[2]
    rules = _RULES.format(table=_TABLE, port=port)
    subprocess.run(["nft", "-f", "-"], input=rules.encode(), check=True)
    try:
        yield at_once
    finally:
        subprocess.run(["nft", "delete", "table", "inet", _TABLE], check=False)


def _moved(*, frozen: bool) -> Inject:
    """Start an agent with the same home on another host, once this one is dead or frozen."""

    @contextlib.contextmanager
    def inject(bed: Bed, _random: Random) -> Iterator[HasStruck]:
        other = bed.make_agent("agent-elsewhere", before=_ELSEWHERE)
        if frozen:
            bed.agent.freeze()
        else:
            bed.agent.rest_killed()
        try:
            other.start()
            taken = until(lambda: other.says(_CONNECTED), _TAKE_OVER_SECONDS)
            bed.agent.thaw()
            yield lambda: taken
        finally:
            other.close()
            bed.agent.thaw()
            bed.agent.start()

    return inject


@contextlib.contextmanager
def _other_agent(bed: Bed, other: Keeper) -> Iterator[HasStruck]:
    other.start()
    try:
        yield lambda: other.starts > 1 or other.says(_CONNECTED)
    finally:
        other.close()


@contextlib.contextmanager
def _one_home(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    with _other_agent(bed, bed.make_agent("agent-same-home")) as struck:
        yield struck


@contextlib.contextmanager
def _one_work_dir(bed: Bed, _random: Random) -> Iterator[HasStruck]:
    """The other one takes no work from our queue: only what is in the directory is shared."""
    other = bed.make_agent(
        "agent-same-work-dir",
        home=str(bed.directory / "home-2"),
        agent_queues={"include_default_queue": False, "additional_queues": ["other"]},
    )
    with _other_agent(bed, other) as struck:
        yield struck


def _clock(seconds: int) -> Inject:
    """Give the agent a clock of its own, and let it step."""

    @contextlib.contextmanager
    def inject(bed: Bed, _random: Random) -> Iterator[HasStruck]:
        offset = bed.directory / "clock"
        offset.write_text("+0\n")
        before = bed.agent.environment
        bed.agent.environment = {
            **before,
            "LD_PRELOAD": str(FAKETIME[0]),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        try:
            bed.agent.restart(_CONNECTED)
            offset.write_text(f"{seconds:+d}\n")
            yield at_once
        finally:
            bed.agent.environment = before
            bed.agent.restart(_CONNECTED)

    return inject


_CLOCKS = [
    Fault(
        name=f"clock an hour {word}",
        group=GROUP,
        text=f"the agent's clock jumps an hour {word}, and 25 s later to where it was",
        inject=_clock(seconds),
        hold_seconds=25,
    )
    for word, seconds in (("ahead", 3600), ("back", -3500))
]
FAULTS = [
    Fault(
        name="relay unreachable",
        group=GROUP,
        text="nodes do not reach the agent for 20 s, while runs begin and write",
        inject=_relay_unreachable,
        hold_seconds=20,
    ),
    Fault(
        name="agent moved",
        group=GROUP,
        text="the agent is killed, one on another host takes over its home, and hands it back",
        inject=_moved(frozen=False),
        hold_seconds=10,
        patience_seconds=240,
    ),
    Fault(
        name="agent moved, old one wakes",
        group=GROUP,
        text="the agent is frozen, one on another host takes over its home, and the old one wakes",
        inject=_moved(frozen=True),
        hold_seconds=15,
        patience_seconds=240,
    ),
    Fault(
        name="two agents, one home",
        group=GROUP,
        text="a second agent is started with the same home",
        inject=_one_home,
        hold_seconds=10,
    ),
    Fault(
        name="two agents, one work_dir",
        group=GROUP,
        text="a second agent with a home of its own is started with the same work_dir",
        inject=_one_work_dir,
        hold_seconds=15,
    ),
    *(_CLOCKS if FAKETIME else []),
]
