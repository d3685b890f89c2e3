"""The stock storages over our gateway give what a plain Dagster instance gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpc_agent.conformance.case import StorageCase, difference
from hpc_agent.conformance.history import record_history
from hpc_agent.conformance.plane import running_plane
from hpc_agent.conformance.sides import Sides, open_sides
from hpc_agent.conformance.storage import (
    CASES,
    LOCAL,
    NOT_CALLED,
    ONLY_HERE,
    covered,
    methods,
    uncovered,
)
from tests.control_plane.conftest import POSTGRESQL, SQLITE
from tests.postgres import PostgresServer

# The history uses what is deprecated but still sent; Dagster's own SQL makes SQLAlchemy warn.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning"),
    # dagster_cloud_cli/core/artifacts.py leaves the file that it uploads open.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", params=[SQLITE, POSTGRESQL])
def urls(request: pytest.FixtureRequest) -> Iterator[tuple[str | None, str | None]]:
    """Where gateway and plain instance keep things; None means SQLite in their homes."""
    if request.param == SQLITE:
        yield None, None
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    template: str = request.getfixturevalue("postgres_template")
    made = server.create_database(template), server.create_database(template)
    yield made
    for url in made:
        server.drop_database(url)


@pytest.fixture(scope="module")
def sides(
    urls: tuple[str | None, str | None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sides]:
    """A gateway, the stock client of it, and a plain instance with the same history."""
    directory = tmp_path_factory.mktemp("contract")
    with (
        running_plane(directory / "home", database_url=urls[0]) as plane,
        open_sides(plane, record_history(), directory / "sides", database_url=urls[1]) as opened,
    ):
        yield opened


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gateway_gives_what_a_plain_instance_gives(sides: Sides, case: StorageCase) -> None:
    """The same call after the same writes has the same outcome."""
    assert difference(case, sides) is None


def test_every_method_has_a_case_or_a_reason() -> None:
    """A method that a new release brings must be looked at."""
    assert uncovered() == []


def test_reasons_are_for_methods_that_exist() -> None:
    """A method that has gone, or has got a case, leaves the lists."""
    excused = NOT_CALLED.keys() | LOCAL.keys() | ONLY_HERE.keys()

    assert excused - set(methods()) == set()
    assert excused & covered() == set()
