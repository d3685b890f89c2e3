"""What ``relay.json`` says of hosts and ports."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest

from hpc_agent.relay.address import announcement

# In a namespace of its own for the machine's name, which a user may change there.
RENAMED = ["unshare", "--uts", *(["--map-root-user"] if os.geteuid() else []), "--"]
ADVERTISED = """
import logging, pathlib, socket, sys
from hpc_agent.relay.address import advertised_hosts
from hpc_agent.relay.settings import RelaySettings
logging.basicConfig(stream=sys.stderr)
socket.sethostname(sys.argv[1])
settings = RelaySettings(state_dir=pathlib.Path("/x"), work_dir=None)
print(*advertised_hosts(settings))
"""


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("login1", "login1:7"),
        ("login1:9", "login1:9"),
        ("10.0.0.1", "10.0.0.1:7"),
        ("2001:db8::1", "[2001:db8::1]:7"),
        ("[2001:db8::1]:9", "[2001:db8::1]:9"),
    ],
)
def test_host_without_a_port_gets_that_of_the_relay(host: str, address: str) -> None:
    """IPv6 addresses in brackets, as the node program reads them."""
    content = json.loads(announcement([host], 7, "PEM"))
    assert content == {"version": 1, "addresses": [address], "certificate": "PEM"}


@pytest.mark.parametrize(("name", "said"), [("localhost", ""), ("no-such-name.invalid", "has no")])
def test_machine_whose_name_means_nothing_tells_its_address(name: str, said: str) -> None:
    """Jobs would look the name up for as long as they run; one that means something is kept."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    done = subprocess.run(
        [*RENAMED, sys.executable, "-c", ADVERTISED, name],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip(done.stderr.strip())
    host = done.stdout.strip()
    assert (host == name) is (said == ""), done.stderr
    assert said in done.stderr
    assert host == name or socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
