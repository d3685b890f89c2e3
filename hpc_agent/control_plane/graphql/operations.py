"""What a document asks for, in a few words that stem from the schema."""

from __future__ import annotations

from graphql import (
    FieldNode,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    SelectionSetNode,
    get_named_type,
)

from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.graphql_document import parse_document

UNKNOWN = "graphql"
_DEPTH = 2
"""Fields at the root group others: ``runs { getRuns }``."""


def operation_of(schema: GraphQLSchema, document: str) -> str:
    """Return the first field that a document asks for, ``runs.getRuns``; only what exists."""
    try:
        parsed = parse_document(document)
    except InputError:
        return UNKNOWN
    for operation in parsed.definitions:
        if isinstance(operation, OperationDefinitionNode):
            root = schema.get_root_type(operation.operation)
            return ".".join(_path(root, operation.selection_set)) or UNKNOWN
    return UNKNOWN


def _path(kind: object, selected: SelectionSetNode | None) -> list[str]:
    names: list[str] = []
    while len(names) < _DEPTH and isinstance(kind, GraphQLObjectType) and selected is not None:
        first = next(iter(selected.selections), None)
        if not isinstance(first, FieldNode) or first.name.value not in kind.fields:
            break
        names.append(first.name.value)
        kind, selected = get_named_type(kind.fields[first.name.value].type), first.selection_set
    return names
