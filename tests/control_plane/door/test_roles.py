"""What each role may do, through the door and through the gateway."""

from __future__ import annotations

import contextlib

import pytest
import sqlalchemy as sa
from dagster_graphql.schema import create_schema

from hpc_agent.control_plane.documents import mutations_of
from hpc_agent.control_plane.roles import OPERATIONS, Role, role_for
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.migrations import MIGRATIONS
from hpc_agent.control_plane.store.schema import tokens
from hpc_agent.control_plane.store.tokens import TokenKind, Tokens
from hpc_agent.inbound.errors import InputError
from tests.control_plane.door.conftest import Setting

FOR_ADMINS = {
    "deleteAppManagedComponent", "deleteConcurrencyLimit", "deleteDynamicPartitions",
    "deletePipelineRun", "deleteRun", "setAppManagedComponent", "setConcurrencyLimit",
    "shutdownRepositoryLocation", "wipeAssets",
}  # fmt: skip
MAY = [(Role.VIEWER, 0), (Role.OPERATOR, 1), (Role.ADMIN, 2)]


def test_every_mutation_of_the_webserver_has_a_role() -> None:
    """One that a new release brings is an admin's until somebody has looked at it."""
    mutation = create_schema().graphql_schema.mutation_type
    assert mutation is not None
    names = set(mutation.fields)
    assert names - OPERATIONS == FOR_ADMINS
    assert names >= OPERATIONS
    assert role_for(["fromTheFuture"]) is Role.ADMIN


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ("{ launchRun }", []),
        ("subscription { launchRun }", []),
        ("mutation { a: wipeAssets b: launchRun }", ["wipeAssets", "launchRun"]),
        ("query A { version } mutation B { wipeAssets }", ["wipeAssets"]),
        ("mutation { ...F } fragment F on Mutation { wipeAssets }", ["wipeAssets"]),
        ("mutation { ... on Mutation { ... { wipeAssets } } }", ["wipeAssets"]),
        ("mutation { launchRun @skip(if: true) }", ["launchRun"]),
        ("mutation { ...F } fragment F on Mutation { ...G wipeAssets } "
         "fragment G on Mutation { ...F launchRun }", ["launchRun", "wipeAssets"]),
        ("mutation { runs { AddRun } }", ["runs"]),
    ],
)  # fmt: skip
def test_mutations_are_found_wherever_they_stand(document: str, names: list[str]) -> None:
    """In fragments, under other names, beside queries, and in those that run in circles."""
    assert [each.name for each in mutations_of(document)] == names


@pytest.mark.parametrize(
    "document",
    ["mutation {", "{a" * 30_000, "{" + "a " * 60_000 + "}", "", "{a}" + "#" * 1_000_000],
)
def test_what_is_no_document_is_refused(document: str) -> None:
    """Also one that is meant to exhaust the parser."""
    with pytest.raises(InputError, match="GraphQL document"):
        mutations_of(document)


@pytest.mark.parametrize(("role", "level"), MAY)
@pytest.mark.parametrize(
    ("document", "needed"),
    [
        ("{ version }", 0),
        ("mutation { launchRun { __typename } }", 1),
        ("mutation { ...F } fragment F on Mutation { wipeAssets { __typename } }", 2),
    ],
)
async def test_door_lets_through_what_the_role_may(
    setting: Setting, role: Role, level: int, document: str, needed: int
) -> None:
    """Whether the visitor has logged in or sends a token."""
    for entering in (setting.browser(role), setting.script(role)):
        async with entering as client:
            answer = await client.post("/graphql", json={"query": document})
        assert answer.status_code == (200 if level >= needed else 403)
    assert len(setting.webserver.requests) == (2 if level >= needed else 0)


@pytest.mark.parametrize(("role", "level"), MAY)
async def test_reports_on_assets_are_for_operators(
    setting: Setting, role: Role, level: int
) -> None:
    """The webserver's REST endpoints change something too."""
    async with setting.script(role) as script:
        answer = await script.post("/report_asset_materialization/a", json={"data_version": "1"})
    assert answer.status_code == (200 if level else 403)
    assert bool(setting.webserver.requests) == bool(level)


def test_users_of_before_are_admins(tmp_path: object) -> None:
    """They could do everything, and go on; agents have no role."""
    url = f"sqlite:///{tmp_path}/gateway.db"
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE migrations (version INTEGER NOT NULL)")
        connection.exec_driver_sql("INSERT INTO migrations VALUES (4)")
        for statement in (each for version in MIGRATIONS[:4] for each in version):
            connection.exec_driver_sql(statement.replace("{bytes}", "BLOB"))
        for kind in ("agent", "user"):
            connection.exec_driver_sql(
                "INSERT INTO tokens VALUES (?, 'old', ?, ?, 0, NULL)", (kind, kind, kind)
            )
    with contextlib.closing(Database(url)) as database:
        roles = {token.kind: token.role for token in Tokens(database).all()}
        with database.write() as connection:
            connection.execute(sa.update(tokens).values(role=None))
        made_by_an_older_gateway = {token.kind: token.role for token in Tokens(database).all()}
    assert roles == made_by_an_older_gateway == {TokenKind.AGENT: None, TokenKind.USER: Role.ADMIN}
