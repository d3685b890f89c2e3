"""Every connection is opened from the inside: shown by firewalls that count what they forbid."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.demo.processes import wait_for
from tests.egress.network import DIALS_IN, DIALS_OUT, DNS, FORBIDDEN, Way
from tests.egress.site import (
    API,
    API_PORT,
    RELAY,
    RELAY_PORT,
    TO_CONTROLLER,
    TO_NODE,
    TO_PROXY,
    Site,
    dial,
    refused,
    running_proxy,
    running_site,
)

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """The site that the tests share; each says what its hosts may dial."""
    with running_site() as running:
        yield running


def test_nothing_is_dialled_but_what_must_be(site: Site) -> None:
    """From the first start on, code server and run included: no rule that forbids has counted."""
    run_id = site.launch_demo()
    assert site.ending(run_id) == "SUCCESS"
    assert "readings are missing" in site.compute_logs(run_id)
    # Between Slurm's own daemons, whatever runs on them; the end of a job is told some time later.
    wait_for(
        "Slurm's daemons do not speak to each other",
        lambda: all(site.counted()["login"][way] for way in (TO_NODE, TO_CONTROLLER)),
        seconds=30,
    )
    counted = site.counted()
    assert refused(counted, FORBIDDEN) == {}
    assert counted["login"][API] == counted["plane"][API] > 0
    nodes = [counted[name] for name in site.node_ports]
    assert sum(node[RELAY] for node in nodes) == counted["login"][RELAY] > 0


def test_a_run_needs_the_relay_and_nothing_else(site: Site) -> None:
    """With its port closed a job dials it in vain, and finds no other way out."""
    site.allow(*site.slurm_ways(), *site.straight_out())
    run_id = site.launch_demo()
    wait_for(
        "no job dials the relay",
        lambda: sum(site.counted()[node][DIALS_OUT] for node in site.node_ports) >= 3,
        seconds=60,
    )
    assert site.status(run_id) == "STARTING"
    assert set(refused(site.counted(), FORBIDDEN)) <= {f"c1: {DIALS_OUT}", f"c2: {DIALS_OUT}"}
    site.allow(*site.slurm_ways(), *site.straight_out(), *site.relay_ways())
    assert site.ending(run_id) == "SUCCESS"
    assert refused(site.counted(), FORBIDDEN) == {}


def test_forbidden_dials_are_counted(site: Site) -> None:
    """The counters that stay zero elsewhere are no ornament."""
    ways = [*site.slurm_ways(), *site.straight_out(), *site.relay_ways()]
    hosts = site.hosts
    for source, target, port in (
        ("c1", "plane", API_PORT),
        ("c1", "c2", 22),
        ("login", "plane", 443),
        ("plane", "login", RELAY_PORT),
    ):
        site.allow(*ways)
        assert not dial(hosts[source], hosts[target], port)
        assert refused(site.counted(), FORBIDDEN) == {f"{source}: {DIALS_OUT}": 1}
    # What the dialling side lets out is counted where it comes in.
    site.allow(*ways)
    inwards = Way(name="inwards", source=hosts["plane"], target=hosts["login"], port=RELAY_PORT)
    hosts["plane"].guard([*ways, inwards])
    assert not dial(hosts["plane"], hosts["login"], RELAY_PORT)
    assert refused(site.counted(), FORBIDDEN) == {f"login: {DIALS_IN}": 1}
    site.allow(*ways)
    with (
        hosts["c2"].entered(),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking,
        contextlib.suppress(PermissionError),
    ):
        asking.sendto(b"?", ("192.0.2.1", 53))
    assert refused(site.counted(), FORBIDDEN) == {f"c2: {DNS}": 1}


def test_an_http_proxy_is_way_enough(site: Site, tmp_path: Path) -> None:
    """The login node reaches a proxy alone, and the control plane is reached by it alone."""
    with running_proxy(site.hosts["proxy"], tmp_path) as url:
        site.allow(*site.slurm_ways(), *site.relay_ways(), *site.through_the_proxy())
        site.restart_agent(proxy=url)
        run_id = site.launch_demo()
        assert site.ending(run_id) == "SUCCESS"
        assert "readings are missing" in site.compute_logs(run_id)
        counted = site.counted()
        assert refused(counted, FORBIDDEN) == {}
        assert counted["proxy"][TO_PROXY] > 0
