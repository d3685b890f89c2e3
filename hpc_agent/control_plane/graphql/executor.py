"""Executing GraphQL documents: a small, fixed set of them, so each is parsed and validated once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ariadne import graphql_sync, load_schema_from_path, make_executable_schema
from graphql import (
    DocumentNode,
    GraphQLEnumType,
    GraphQLError,
    GraphQLSchema,
    NoSchemaIntrospectionCustomRule,
    specified_rules,
    validate,
)

from hpc_agent.control_plane.graphql import (
    agent,
    assets,
    commands,
    concurrency,
    deployments,
    event_logs,
    runs,
    scalars,
    schedules,
    status_cache,
    upkeep,
)
from hpc_agent.control_plane.graphql.context import RequestContext
from hpc_agent.errors import HpcAgentError
from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.graphql_document import check_cost, parse_document
from hpc_agent.inbound.graphql_request import GraphQLRequest

CACHED_DOCUMENTS = 512
_DOMAINS = (
    scalars, agent, runs, event_logs, assets, status_cache, concurrency, schedules, upkeep,
    deployments, commands,
)  # fmt: skip

_NAMESPACE: Mapping[str, object] = {}

logger = logging.getLogger(__name__)


class GraphQLExecutor:
    """The schema with its resolvers; blocking, for worker threads."""

    def __init__(self) -> None:
        self.schema = make_schema()
        self._parse = lru_cache(CACHED_DOCUMENTS)(_parsed)
        self._errors = lru_cache(CACHED_DOCUMENTS)(self._validate)

    def execute(self, asked: GraphQLRequest, context: RequestContext) -> dict[str, Any]:
        """Execute a document and return the response body. Raises InputError."""
        document = self._parse(asked.document)
        _, response = graphql_sync(
            self.schema,
            {
                "query": asked.document,
                "variables": dict(asked.variables),
                "operationName": asked.operation,
            },
            context_value=context,
            query_parser=lambda *_: document,
            # The schema is for people who write scripts, not for agents and what runs behind them.
            query_validator=lambda *_, **__: self._errors(asked.document, context.is_user),
            error_formatter=_format_error,
            introspection=True,
            logger=_Quiet("graphql"),
        )
        body: dict[str, Any] = response
        return body

    def _validate(self, text: str, may_introspect: bool) -> list[GraphQLError]:
        rules = [] if may_introspect else [NoSchemaIntrospectionCustomRule]
        return validate(self.schema, self._parse(text), [*specified_rules, *rules])


def _parsed(text: str) -> DocumentNode:
    document = parse_document(text)
    check_cost(document)
    return document


def make_schema() -> GraphQLSchema:
    """Build the schema and bind every domain's resolvers."""
    path = Path(__file__).with_name("schema.graphql")
    _bind_namespaces()
    bindables = [bindable for domain in _DOMAINS for bindable in domain.bindables]
    schema = make_executable_schema(
        load_schema_from_path(str(path)), *bindables, convert_names_case=True
    )
    _restore_enums(schema)
    return schema


def _restore_enums(schema: GraphQLSchema) -> None:
    """Take back what ariadne puts over ``parse_value`` of each enum.

    It is for enums with Python values, of which there are none here, and ariadne 1.1.1's takes one
    argument where graphql-core 3.2.14 gives two: each enum in a variable would be refused.
    """
    for named in schema.type_map.values():
        if isinstance(named, GraphQLEnumType):
            vars(named).pop("parse_value", None)


def _bind_namespaces() -> None:
    """Give the grouping fields (``runs { … }``) something to resolve on."""
    for root in (agent.query, agent.mutation):
        for name in ("runs", "eventLogs", "schedules"):
            root.set_field(name, lambda *_: _NAMESPACE)
    agent.mutation.set_field("defsState", lambda *_: _NAMESPACE)


def _format_error(error: GraphQLError, debug: bool = False) -> dict[str, Any]:
    original = error.original_error
    if original is not None and not isinstance(original, HpcAgentError | InputError):
        logger.error("GraphQL field %s failed", error.path, exc_info=original)
    return {"message": error.message, "path": error.path}


class _Quiet(logging.LoggerAdapter[logging.Logger]):
    """Ariadne logs each error with its traceback; ``_format_error`` decides that here."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 the name is logging's
        return False
