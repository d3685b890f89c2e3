"""GraphQL documents of users: what they would change. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    ValueNode,
    parse,
)
from graphql.utilities import value_from_ast_untyped

from hpc_agent.errors import ControlPlaneRefusedError

MAX_TOKENS = 50_000
"""The UI's longest documents have some thousands."""

LONGEST = 1_000_000
LONGEST_CACHED = 64_000
CACHED_DOCUMENTS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One root field of a mutation; ``key`` is its name in the answer."""

    name: str
    key: str
    arguments: tuple[tuple[str, ValueNode], ...]

    def values(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with the variables put in."""
        return {
            name: value_from_ast_untyped(node, dict(variables)) for name, node in self.arguments
        }


def mutations_of(document: str) -> tuple[Mutation, ...]:
    """Return what the mutations of a document call, of all its operations.

    Which of several operations is executed need not be known to forbid one of them. Raises
    ControlPlaneRefusedError.
    """
    if len(document) > LONGEST:
        raise ControlPlaneRefusedError(
            f"not a valid GraphQL document: more than {LONGEST} characters"
        )
    return _cached(document) if len(document) <= LONGEST_CACHED else _mutations(document)


@lru_cache(CACHED_DOCUMENTS)
def _cached(document: str) -> tuple[Mutation, ...]:
    return _mutations(document)


def _mutations(document: str) -> tuple[Mutation, ...]:
    try:
        tree = parse(document, no_location=True, max_tokens=MAX_TOKENS)
    except (GraphQLError, RecursionError) as error:
        raise ControlPlaneRefusedError(f"not a valid GraphQL document: {error}") from error
    fragments = {
        node.name.value: node.selection_set
        for node in tree.definitions
        if isinstance(node, FragmentDefinitionNode)
    }
    return tuple(
        Mutation(
            name=field.name.value,
            key=(field.alias or field.name).value,
            arguments=tuple((each.name.value, each.value) for each in field.arguments),
        )
        for operation in _operations(tree)
        if operation.operation is OperationType.MUTATION
        for field in _fields(operation.selection_set, fragments, set())
    )


def _operations(tree: DocumentNode) -> Iterator[OperationDefinitionNode]:
    return (node for node in tree.definitions if isinstance(node, OperationDefinitionNode))


def _fields(
    selected: SelectionSetNode, fragments: Mapping[str, SelectionSetNode], seen: set[str]
) -> Iterator[FieldNode]:
    """Yield the fields of a root, those in its fragments too."""
    for node in selected.selections:
        if isinstance(node, FieldNode):
            yield node
        elif isinstance(node, FragmentSpreadNode):
            name = node.name.value
            if name in fragments and name not in seen:
                seen.add(name)
                yield from _fields(fragments[name], fragments, seen)
        elif isinstance(node, InlineFragmentNode):
            yield from _fields(node.selection_set, fragments, seen)
