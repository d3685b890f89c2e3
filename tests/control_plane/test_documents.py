"""The schema accepts what the installed dagster-cloud package sends."""

from __future__ import annotations

import importlib.util

import pytest
from graphql import GraphQLSchema, parse, validate

from hpc_agent.conformance.documents import (
    COMMANDS_ELSEWHERE,
    ELSEWHERE,
    FROM_WEBSERVER,
    Document,
    agent_documents,
    command_documents,
    documents,
)
from hpc_agent.control_plane.graphql.executor import make_schema
from hpc_agent.control_plane.http.webserver import is_for_webserver


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return make_schema()


def test_documents_are_found() -> None:
    """The collection works: it holds the well-known ones, and a plausible number."""
    names = {document.name for document in documents()}

    assert {"STORE_EVENT_MUTATION", "GET_USER_CLOUD_REQUESTS_QUERY", "SECRETS_QUERY"} <= names
    assert len(agent_documents()) >= 100


@pytest.mark.parametrize(
    "document",
    [each for each in documents() if each.name not in {*COMMANDS_ELSEWHERE, *FROM_WEBSERVER}],
    ids=str,
)
def test_document_is_valid(schema: GraphQLSchema, document: Document) -> None:
    """Each document, also one that a new release brings, validates against our schema."""
    assert [error.message for error in validate(schema, parse(document.text))] == []


@pytest.mark.parametrize(
    "document", [each for each in command_documents() if each.name in FROM_WEBSERVER], ids=str
)
def test_webserver_gets_what_is_its_own(schema: GraphQLSchema, document: Document) -> None:
    """What the UI's GraphQL answers is recognized by what it asks."""
    assert is_for_webserver(schema, document.text)


def test_exceptions_exist() -> None:
    """The lists of what is not ours are true of the installed release."""
    names = {document.name for document in documents()}

    assert names >= COMMANDS_ELSEWHERE.keys()
    assert names >= FROM_WEBSERVER
    for module in ELSEWHERE:
        assert importlib.util.find_spec(module) is not None
