"""Hosts on one machine: network namespaces on a switch, each with a firewall that counts."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

DNS, DIALS_OUT, DIALS_IN = "dns", "dials_out", "dials_in"
FORBIDDEN = (DNS, DIALS_OUT, DIALS_IN)
"""The counters of what no rule allows."""

_CLONE_NEWNET = 0x40000000
_NET = "10.77.0."


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A network namespace with one interface."""

    namespace: str
    address: str

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread, and the processes that it starts meanwhile, be on the host."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
        try:
            _set_namespace(there)
            yield
        finally:
            _set_namespace(before)
            os.close(there)
            os.close(before)

    def guard(self, ways: Sequence[Way]) -> None:
        """Let the host dial, and be dialled, on these ways alone; all counters begin at zero."""
        _run("nft", "-f", "-", namespace=self.namespace, stdin=_rules(self, ways))

    def counted(self) -> dict[str, int]:
        """Return how often each rule's dial was made: the first packets of connections."""
        argv = ("nft", "-j", "list", "counters", "table", "inet", "egress")
        listed = _run(*argv, namespace=self.namespace)
        entries = [each["counter"] for each in json.loads(listed)["nftables"] if "counter" in each]
        return {counter["name"]: counter["packets"] for counter in entries}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What one host may dial of another one, counted under a name."""

    name: str
    source: Host
    target: Host
    port: int


@contextmanager
def network(*names: str) -> Iterator[dict[str, Host]]:
    """Make hosts that reach each other, and remove them with all that runs on them.

    Skips the test, with the reason, where there can be none.
    """
    missing = [program for program in ("ip", "nft", "nsenter") if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"hosts need root and {', '.join(missing) or 'its rights'}")
    prefix = f"hpc{os.getpid()}"
    switch = f"{prefix}-switch"
    hosts = {
        name: Host(namespace=f"{prefix}-{name}", address=f"{_NET}{number}")
        for number, name in enumerate(names, start=1)
    }
    try:
        try:
            _run("ip", "netns", "add", switch)
            _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
            _run("nft", "add", "table", "inet", "egress", namespace=switch)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no hosts can be made here: {error.stderr.strip()}")
        _run("ip", "-n", switch, "link", "set", "dev", "bridge", "up")
        for name, host in hosts.items():
            _plug_in(host, name, switch)
        yield hosts
    finally:
        for namespace in (*(host.namespace for host in hosts.values()), switch):
            _remove(namespace)


def _plug_in(host: Host, name: str, switch: str) -> None:
    namespace = host.namespace
    _run("ip", "netns", "add", namespace)
    with host.entered():
        for setting in Path("/proc/sys/net/ipv6/conf").glob("*/disable_ipv6"):
            setting.write_text("1")  # its own announcements would be counted
    peer = ("type", "veth", "peer", "name", name, "netns", switch)
    _run("ip", "link", "add", "eth0", "netns", namespace, *peer)
    _run("ip", "-n", switch, "link", "set", "dev", name, "master", "bridge", "up")
    _run("ip", "-n", namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
    for interface in ("lo", "eth0"):
        _run("ip", "-n", namespace, "link", "set", "dev", interface, "up")
    # There is nothing beyond; but what has no route would never come to the firewall.
    _run("ip", "-n", namespace, "route", "add", "default", "dev", "eth0")


def _remove(namespace: str) -> None:
    """Remove a namespace and whatever still runs in it, which nobody but the test has started."""
    pids = subprocess.run(
        ["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False
    )
    for pid in pids.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)


def _rules(host: Host, ways: Sequence[Way]) -> str:
    """Return a table for nft(8) in place of the one before; answers to what was dialled pass."""
    names = sorted({way.name for way in ways})
    counters = "\n".join(f"counter {name} {{ }}" for name in (*FORBIDDEN, *names))
    out = "\n".join(
        f"ip daddr {way.target.address} tcp dport {way.port} counter name {way.name} accept"
        for way in ways
        if way.source == host
    )
    into = "\n".join(
        f"ip saddr {way.source.address} tcp dport {way.port} counter name {way.name} accept"
        for way in ways
        if way.target == host
    )
    return f"""
table inet egress {{ }}
delete table inet egress
table inet egress {{
{counters}
chain output {{
type filter hook output priority filter; policy drop;
meta l4proto {{ tcp, udp }} th dport 53 counter name {DNS} drop
oifname lo accept
ct state established,related accept
{out}
tcp flags & (fin | syn | rst | ack) != syn drop comment "the end of a connection is no dial"
counter name {DIALS_OUT} drop
}}
chain input {{
type filter hook input priority filter; policy drop;
iifname lo accept
ct state established,related accept
{into}
tcp flags & (fin | syn | rst | ack) != syn drop
counter name {DIALS_IN} drop
}}
}}
"""


def _set_namespace(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _run(*argv: str, namespace: str = "", stdin: str = "") -> str:
    entering = ("nsenter", f"--net=/run/netns/{namespace}") if namespace else ()
    return subprocess.run(
        [*entering, *argv], input=stdin, capture_output=True, text=True, check=True, timeout=30
    ).stdout
