"""The stock ``dagster-cloud`` agent with its process launcher, on the same gateway as ours."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from hpc_agent.conformance.stock_agent import running_stock_agent
from tests.bench.peers.runners.behind_webserver import BehindWebserver
from tests.bench.peers.runners.ours import control_plane, deploy, face
from tests.bench.peers.runners.runner import PROCESSES_AT_MOST, Place, Served

NAME = "stock agent"


@contextlib.contextmanager
def stock(place: Place) -> Iterator[Served]:
    """Start the control plane and the stock agent; runs are processes of this machine."""
    with control_plane(place, {}) as stack:
        home = ("--home", str(stack.directories.control_plane))
        created = stack.run_command(
            "control-plane", "token", "create", "--name", "stock", "--json", *home
        )
        with running_stock_agent(
            place.directory / "stock",
            api=stack.api_url,
            ca=str(stack.directories.ca),
            token=json.loads(created)["token"],
        ) as agent:
            deploy(stack)
            yield BehindWebserver(
                NAME,
                stack.webserver,
                code_server=face(stack),
                accepted=["is launching run"],
                agent_pid=agent.pid,
                at_most=PROCESSES_AT_MOST,
            )
