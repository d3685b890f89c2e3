"""Every kind of request, from the face's socket to the stock agent's code server and back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpc_agent.conformance import request_types
from hpc_agent.conformance.request_cases import (
    REQUEST_CASES,
    RequestCase,
    RequestSetting,
    open_requests,
)
from tests.postgres import PostgresServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def setting(
    postgres: PostgresServer, postgres_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RequestSetting]:
    """A control plane on PostgreSQL with the stock agent; on SQLite the command itself runs it."""
    url = postgres.create_database(postgres_template)
    with open_requests(tmp_path_factory.mktemp("requests"), database_url=url) as opened:
        yield opened
    postgres.drop_database(url)


@pytest.mark.parametrize("case", REQUEST_CASES, ids=str)
def test_request_is_answered_by_the_stock_agent(setting: RequestSetting, case: RequestCase) -> None:
    """The call on the face gives what a code server with the same code gives."""
    assert case.problem(setting) is None


def test_every_kind_that_is_sent_has_a_case() -> None:
    """A request type that the gateway learns to send needs a call that provokes it."""
    assert {case.api for case in REQUEST_CASES} == set(request_types.sent())
