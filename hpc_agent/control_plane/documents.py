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
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    ValueNode,
)

from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.graphql_document import argument_values, parse_document

LONGEST_CACHED = 64_000
CACHED_DOCUMENTS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One root field of a mutation; ``key`` is its name in the answer."""

    name: str
    key: str
    arguments: tuple[tuple[str, ValueNode], ...]

    def values(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with the variables put in; none where one cannot be read."""
        try:
            return argument_values(self.arguments, variables)
        except InputError:
            return {}


def mutations_of(document: str) -> tuple[Mutation, ...]:
    """Return what the mutations of a document call, of all its operations.

    Which of several operations is executed need not be known to forbid one of them. Raises
    InputError.
    """
    return _cached(document) if len(document) <= LONGEST_CACHED else _mutations(document)


@lru_cache(CACHED_DOCUMENTS)
def _cached(document: str) -> tuple[Mutation, ...]:
    return _mutations(document)


def _mutations(document: str) -> tuple[Mutation, ...]:
    tree = parse_document(document, no_location=True)
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
