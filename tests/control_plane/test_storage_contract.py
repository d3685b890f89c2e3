"""The stock storages over our gateway give what a plain Dagster instance gives."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator

import pytest

from hpc_agent.conformance.case import StorageCase, difference
from hpc_agent.conformance.history import record_history
from hpc_agent.conformance.plane import running_plane
from hpc_agent.conformance.promise_cases import PROMISES
from hpc_agent.conformance.sides import Sides, open_sides
from hpc_agent.conformance.storage import (
    CASES,
    LOCAL,
    NOT_CALLED,
    ONLY_HERE,
    STORAGES,
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
    excused = PROMISES.keys() | NOT_CALLED.keys() | LOCAL.keys() | ONLY_HERE.keys()

    assert excused - set(methods()) == set()
    assert excused & covered() == set()


def test_promises_have_cases() -> None:
    """What the client says that we can do is shown, not believed."""
    assert set(PROMISES.values()) - covered() == set()


@pytest.mark.parametrize("name", NOT_CALLED)
def test_client_refuses_what_is_not_called(name: str) -> None:
    """It raises in the words of its code, without asking anybody."""
    source = inspect.getsource(_method(name))

    assert re.search(r"NotImplementedError|raise Exception\(.Not allowed|get_asset_check_", source)
    assert "_execute_query" not in source


@pytest.mark.parametrize("name", [each for each, reason in LOCAL.items() if "base class" in reason])
def test_defaults_are_the_base_class_s(name: str) -> None:
    """A release that overrides one may ask the control plane."""
    storage, _, method = name.partition(".")

    assert method not in vars(STORAGES[storage])


@pytest.mark.parametrize("name", [*PROMISES, *(k for k, v in LOCAL.items() if "cannot" in v)])
def test_client_answers_without_asking(name: str) -> None:
    """True for a promise, False for what it declines."""
    answer = _method(name)(None)

    assert answer is (name in PROMISES)


def _method(name: str) -> Callable[..., object]:
    storage, _, method = name.partition(".")
    found = inspect.getattr_static(STORAGES[storage], method)
    asked = found.fget if isinstance(found, property) else found
    assert callable(asked)
    return asked
