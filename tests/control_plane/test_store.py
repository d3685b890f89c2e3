"""The gateway's tables: upgrades, first starts, tokens; on SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.deployments import Deployments
from hpc_agent.control_plane.store.locations import Locations, NewLocation
from hpc_agent.control_plane.store.migrations import MIGRATIONS
from hpc_agent.control_plane.store.postgresql import SCHEMA
from hpc_agent.control_plane.store.requests import Requests
from hpc_agent.control_plane.store.tokens import TokenKind, Tokens, digest
from tests.control_plane.conftest import POSTGRESQL, on_both_databases
from tests.postgres import PostgresServer

pytestmark = on_both_databases


@pytest.fixture
def empty(storage: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any tables."""
    if storage != POSTGRESQL:
        yield f"sqlite:///{tmp_path / 'gateway.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.create_database()
    yield url
    server.drop_database(url)


def test_tables_of_the_first_release_are_upgraded(empty: str) -> None:
    """What was deployed and enqueued before is still there, and every deployment has its number."""
    engine = sa.create_engine(empty, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
            connection.exec_driver_sql(f"SET LOCAL search_path TO {SCHEMA}")
        for statement in (
            "CREATE TABLE migrations (version INTEGER NOT NULL)",
            "INSERT INTO migrations VALUES (1)",
            *MIGRATIONS[0],
            "INSERT INTO deployments VALUES ('staging', 1)",
            "INSERT INTO locations VALUES ('staging', 'a', NULL, '{}', 1, NULL, NULL, NULL)",
            "INSERT INTO requests VALUES ('r', 'prod', 'LAUNCH_RUN', '{}', NULL, 'run', "
            "'queued', 1, NULL, NULL, NULL, 0, NULL, NULL)",
        ):
            connection.exec_driver_sql(statement)

    with contextlib.closing(Database(empty)) as database:
        assert [each.face_name for each in Locations(database).all()] == ["a@staging"]
        request = Requests(database).get("r")
        assert request is not None
        assert not request.is_branch
        found = Deployments(database).all()
    assert [(each.name, each.is_branch) for each in found] == [("prod", False), ("staging", False)]
    assert len({each.deployment_id for each in found}) == 2


def test_gateways_that_start_together_make_the_tables_once(empty: str) -> None:
    """The first start of several gateways at the same moment."""
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(Database, [empty] * 8))

    assert [each.name for each in Deployments(opened[0]).all()] == ["prod"]
    for database in opened:
        database.close()


def test_deploys_at_the_same_time_leave_all_locations(database: Database) -> None:
    """Two CI jobs deploy several locations each, in opposite order."""
    new = [NewLocation(name=name, agent_queue=None, deploy_data="{}") for name in "abcdef"]
    locations = Locations(database)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda order: locations.deploy("prod", order), [new, new[::-1]] * 10))

    assert [each.name for each in locations.all()] == list("abcdef")


def test_token_is_found_until_revoked(database: Database) -> None:
    """By the digest of its secret; the table holds nothing else of it."""
    tokens = Tokens(database)
    token, secret = tokens.create("ci", TokenKind.USER)
    assert tokens.find(digest(secret)) == token

    assert tokens.revoke(token.token_id)

    assert tokens.find(digest(secret)) is None
    assert not tokens.revoke(token.token_id)
    assert [each.name for each in tokens.all()] == ["ci"]
