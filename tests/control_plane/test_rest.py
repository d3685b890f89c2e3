"""Uploads, answers, logs and maintenance by the stock client's own code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpc_agent.conformance import request_types
from hpc_agent.conformance.plane import running_plane
from hpc_agent.conformance.rest_cases import (
    REST_CASES,
    RestCase,
    RestSetting,
    open_rest,
)
from hpc_agent.conformance.sides import client_instance

# requests' sessions are closed by the stock client when it is collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestSetting]:
    """A gateway, the stock client of it, and a real code server."""
    directory = tmp_path_factory.mktemp("rest")
    with (
        running_plane(directory / "home") as plane,
        client_instance(plane, directory / "client") as client,
        open_rest(plane, client) as opened,
    ):
        yield opened


@pytest.mark.parametrize("case", REST_CASES, ids=str)
def test_call_has_its_effect(setting: RestSetting, case: RestCase) -> None:
    """What the client sends arrives, and what it gets back is what it understands."""
    assert case.check(setting) is None


def test_every_request_type_is_sent_or_has_a_reason() -> None:
    """A request type that a new release brings must be looked at."""
    assert request_types.unexplained() == []
    assert set(request_types.sent()) & set(request_types.NOT_SENT) == set()
