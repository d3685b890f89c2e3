"""What ``relay.json`` says of hosts and ports."""

from __future__ import annotations

import json

import pytest

from hpc_agent.relay.address import announcement


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
