"""The schema accepts what the stock dagster-cloud package sends."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator

import pytest
from graphql import GraphQLSchema, parse, validate

from hpc_agent.control_plane.graphql.executor import make_schema

MODULES = (
    "dagster_cloud.agent.queries",
    "dagster_cloud.agent.dagster_cloud_agent",
    "dagster_cloud.secrets.loader",
    "dagster_cloud.storage.runs.queries",
    "dagster_cloud.storage.event_logs.queries",
    "dagster_cloud.storage.schedules.queries",
    "dagster_cloud.storage.defs_state.queries",
)
"""Every module of agent, code servers and run workers that holds GraphQL."""

CLI_DOCUMENTS = (
    "AGENT_STATUS_QUERY",
    "AGENT_TYPE_QUERY",
    "DEPLOYMENT_NAME_QUERY",
    "WORKSPACE_ENTRIES_QUERY",
    "REPOSITORY_LOCATIONS_QUERY",
    "ADD_OR_UPDATE_LOCATION_FROM_DOCUMENT_MUTATION",
    "DELETE_LOCATION_MUTATION",
    "RECONCILE_LOCATIONS_FROM_DOCUMENT_MUTATION",
    "DEPLOY_LOCATIONS_FROM_DOCUMENT_MUTATION",
    "FULL_DEPLOYMENTS_QUERY",
    "CREATE_OR_UPDATE_BRANCH_DEPLOYMENT",
    "GET_BRANCH_DEPLOYMENT_NAME",
    "GET_DEPLOYMENT_BY_NAME_QUERY",
    "DELETE_DEPLOYMENT_MUTATION",
)
"""What ``dagster-cloud workspace``, ``deployment`` and ``branch-deployment`` need to deploy."""

NOT_COVERED = {
    "DELETE_EVENTS_MUTATION": "deletes history; runs are deleted in the UI",
    "WIPE_EVENT_LOG_STORAGE_MUTATION": "deletes history",
    "WIPE_ASSET_MUTATION": "deletes history; assets are wiped in the UI",
    "WIPE_ASSET_PARTITIONS_MUTATION": "deletes history; assets are wiped in the UI",
    "UPGRADE_EVENT_LOG_STORAGE_MUTATION": "`dagster instance migrate` is run where the data is",
    "REINDEX_MUTATION": "`dagster instance reindex` is run where the data is",
    "ENABLE_SECONDARY_INDEX_MUTATION": "an index is the storage's own business",
}


def documents() -> Iterator[tuple[str, str]]:
    operation = re.compile(r"^\s*(query|mutation)\s+\w+", re.MULTILINE)
    for name in MODULES:
        for key, value in vars(importlib.import_module(name)).items():
            if isinstance(value, str) and key.isupper() and operation.search(value):
                yield key, value


ALL = dict(documents())


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return make_schema()


def test_documents_are_found() -> None:
    """The collection works: it holds the well-known ones, and a plausible number."""
    assert {"STORE_EVENT_MUTATION", "GET_USER_CLOUD_REQUESTS_QUERY", "SECRETS_QUERY"} <= set(ALL)
    assert len(ALL) > 90


@pytest.mark.parametrize("name", sorted(set(ALL) - set(NOT_COVERED)))
def test_document_is_valid(schema: GraphQLSchema, name: str) -> None:
    """A stock document validates against our schema."""
    assert [error.message for error in validate(schema, parse(ALL[name]))] == []


@pytest.mark.parametrize("name", sorted(NOT_COVERED))
def test_uncovered_document_is_still_uncovered(schema: GraphQLSchema, name: str) -> None:
    """The list of gaps is true: what has been covered since must be taken off it."""
    assert validate(schema, parse(ALL[name])) != []


@pytest.mark.parametrize("name", CLI_DOCUMENTS)
def test_document_of_the_command_is_valid(schema: GraphQLSchema, name: str) -> None:
    """The stock ``dagster-cloud`` command can deploy here."""
    document = getattr(importlib.import_module("dagster_cloud_cli.gql"), name)

    assert [error.message for error in validate(schema, parse(document))] == []
