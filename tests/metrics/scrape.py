"""Reading metrics as Prometheus does."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]


class Scraped:
    """The samples of one answer."""

    def __init__(self, text: str) -> None:
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a series that have these labels."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    @property
    def names(self) -> set[str]:
        """The names of all series."""
        return {sample.name for sample in self.samples}


def scraped(address: str) -> Scraped:
    """Read ``unix:/PATH`` or ``127.0.0.1:PORT``."""
    with httpx.Client(transport=_transport(address), trust_env=False, timeout=20) as client:
        return Scraped(client.get(_url(address)).raise_for_status().text)


async def scraped_soon(address: str) -> Scraped:
    """Do the same from within the event loop that serves."""
    transport = httpx.AsyncHTTPTransport(uds=_path(address))
    async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=20) as client:
        return Scraped((await client.get(_url(address))).raise_for_status().text)


def _transport(address: str) -> httpx.HTTPTransport:
    return httpx.HTTPTransport(uds=_path(address))


def _path(address: str) -> str | None:
    return address.removeprefix("unix:") if address.startswith("unix:") else None


def _url(address: str) -> str:
    return f"http://{'localhost' if _path(address) else address}/metrics"
