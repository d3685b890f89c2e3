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
    parse,
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
        self._parse = lru_cache(CACHED_DOCUMENTS)(parse)
        self._errors = lru_cache(CACHED_DOCUMENTS)(self._validate_text)

    def execute(self, data: Mapping[str, Any], context: RequestContext) -> dict[str, Any]:
        """Execute a document and return the response body."""
        _, response = graphql_sync(
            self.schema,
            dict(data),
            context_value=context,
            query_parser=lambda _context, query: self._parse(query["query"]),
            query_validator=self._validate,
            error_formatter=_format_error,
            introspection=True,
            logger=_Quiet("graphql"),
        )
        body: dict[str, Any] = response
        return body

    def _validate(
        self,
        schema: GraphQLSchema,
        document_ast: DocumentNode,
        rules: object = None,
        max_errors: int | None = None,
        type_info: object = None,
    ) -> list[GraphQLError]:
        return self._errors(document_ast.loc.source.body if document_ast.loc else "")

    def _validate_text(self, text: str) -> list[GraphQLError]:
        return validate(self.schema, self._parse(text))


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
    if original is not None and not isinstance(original, HpcAgentError):
        logger.error("GraphQL field %s failed", error.path, exc_info=original)
    return {"message": error.message, "path": error.path}


class _Quiet(logging.LoggerAdapter[logging.Logger]):
    """Ariadne logs each error with its traceback; ``_format_error`` decides that here."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 the name is logging's
        return False
