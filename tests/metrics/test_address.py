"""Metrics are read on this machine, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_agent.errors import ConfigError
from hpc_agent.metrics.address import LocalAddress


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/x y.sock", LocalAddress(path=Path("/run/x y.sock"))),
        ("127.0.0.1:9187", LocalAddress(host="127.0.0.1", port=9187)),
        ("127.8.0.1:0", LocalAddress(host="127.8.0.1", port=0)),
        ("[::1]:9187", LocalAddress(host="::1", port=9187)),
    ],
)
def test_socket_or_loopback_port_is_read(text: str, address: LocalAddress) -> None:
    """All of the loopback network is this machine."""
    assert LocalAddress.parse(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0:9187",
        "[::]:9187",
        ":9187",
        "10.0.0.1:9187",
        "login1:9187",
        "localhost:9187",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:99999",
        "127.0.0.1:-1",
        "[::ffff:10.0.0.1]:9187",
        "unix:metrics.sock",
        "unix:",
        "",
    ],
)
def test_anything_that_others_could_reach_is_refused(text: str) -> None:
    """Names too: a resolver says what they are."""
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:PORT|must be absolute"):
        LocalAddress.parse(text)


def test_port_in_use_is_an_error_of_the_setting() -> None:
    """In one sentence, with the address."""
    with (
        LocalAddress.parse("127.0.0.1:0").bind() as taken,
        pytest.raises(ConfigError, match="cannot show metrics on 127"),
    ):
        LocalAddress(host="127.0.0.1", port=taken.getsockname()[1]).bind()
