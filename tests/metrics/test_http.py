"""Requests are counted by what they ask for, whatever callers invent."""

from __future__ import annotations

from collections import Counter

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hpc_agent.metrics.gateway import API
from hpc_agent.metrics.http import Measured, name_operation
from hpc_agent.metrics.meter import Silent
from hpc_agent.metrics.metric import Metric


class Remembered(Silent):
    """A meter whose numbers a test can look at."""

    def __init__(self) -> None:
        self.numbers: Counter[tuple[str, ...]] = Counter()

    def count(self, metric: Metric, *labels: str, amount: float = 1) -> None:
        self.numbers[metric.name, *labels] += int(amount)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        assert value >= 0
        self.numbers[metric.name, *labels] += 1

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        self.numbers[metric.name, *labels] = int(value)


async def echo(request: Request) -> Response:
    body = await request.body()
    if body == b"named":
        name_operation(request.scope, "runs.getRuns")
    return PlainTextResponse(body * 2)


async def test_requests_and_bytes_are_counted_by_route() -> None:
    """What varies in a path is no label, and neither is a path that is not served."""
    meter = Remembered()
    app = Starlette(
        routes=[
            Route("/graphql", echo, methods=["POST"]),
            Route("/uploads/{segment}", echo, methods=["PUT"]),
        ],
        middleware=[Middleware(Measured, meter=meter, metrics=API)],
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        await client.post("/graphql", content=b"abc")
        await client.post("/graphql", content=b"named")
        await client.get("/graphql")
        await client.put("/uploads/signed.secret", content=b"12345")
        await client.get("/etc/passwd")

    took, received, sent = API.requests.name, API.received.name, API.sent.name
    assert meter.numbers[took, "graphql", "200"] == 1
    assert meter.numbers[took, "graphql", "405"] == 1
    assert meter.numbers[took, "runs.getRuns", "200"] == 1
    assert meter.numbers[took, "uploads", "200"] == 1
    assert meter.numbers[took, "unknown", "404"] == 1
    assert meter.numbers[received, "uploads"] == 5
    assert meter.numbers[sent, "uploads"] == 10
    assert not [key for key in meter.numbers if "secret" in str(key) or "passwd" in str(key)]
