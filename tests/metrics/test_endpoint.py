"""The listener: text for whoever is on this machine, one path, no waiting without an end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import httpx

from hpc_agent.errors import StoreError
from hpc_agent.metrics.address import LocalAddress
from hpc_agent.metrics.endpoint import serving
from hpc_agent.metrics.meter import Reading
from hpc_agent.metrics.prometheus import PrometheusMeter
from tests.metrics.scrape import scraped_soon
from tests.metrics.test_prometheus import LEFT, THINGS


async def some_left() -> Iterable[Reading]:
    return [Reading(LEFT, 3, ("a",))]


ANY_PORT = LocalAddress(host="127.0.0.1", port=0)


async def answer(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url, headers=headers)


async def test_unix_socket_answers_and_is_gone_with_the_program(tmp_path: Path) -> None:
    """For this account and the group of the directory."""
    path = tmp_path / "m.sock"
    async with serving(LocalAddress(path=path), PrometheusMeter(THINGS), some_left):
        assert path.stat().st_mode & 0o777 == 0o660
        found = await scraped_soon(f"unix:{path}")
        assert found.value("t_left", kind="a") == 3
    assert not path.exists()


async def test_port_answers_only_who_means_this_machine() -> None:
    """Not a page whose owner lets his name lead here, and nothing but the one path."""
    async with serving(ANY_PORT, PrometheusMeter(THINGS), some_left) as url:
        assert (await answer(url)).status_code == 200
        assert (await answer(url, Host="evil.example")).status_code == 421
        assert (await answer(url.removesuffix("/metrics"))).status_code == 404


async def test_what_cannot_be_read_is_said() -> None:
    """``up`` becomes 0, and the reason is in the answer."""

    async def fails() -> Iterable[Reading]:
        raise StoreError("disk full")

    async with serving(ANY_PORT, PrometheusMeter(THINGS), fails) as url:
        found = await answer(url)
    assert found.status_code == 503
    assert "disk full" in found.text


async def test_reading_that_hangs_has_an_end() -> None:
    """A scrape that takes too long says so before Prometheus gives up."""

    async def hangs() -> Iterable[Reading]:
        await asyncio.Event().wait()
        return []

    meter = PrometheusMeter(THINGS)
    async with serving(ANY_PORT, meter, hangs, patience_seconds=0.1) as url:
        found = await answer(url)
    assert found.status_code == 503
    assert "no answer in time" in found.text
