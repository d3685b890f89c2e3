"""GraphQL documents within limits, so that neither reading nor executing one takes long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
    parse,
)
from graphql.utilities import value_from_ast_untyped

from hpc_agent.inbound.errors import InputError, InputTooLargeError

LONGEST = 200_000
"""Characters. The longest document of the stock clients has about 1,000, that of the UI 20,000."""

_MOST_TOKENS = 20_000
# Those of dagster-cloud 1.13 have at most 30 fields, 4 levels and no alias.
_MOST_FIELDS = 500
_MOST_ALIASES = 30
_DEEPEST = 30


def parse_document(text: str, **options: Any) -> DocumentNode:
    """Return a document, parsed. Raises InputError, InputTooLargeError."""
    if len(text) > LONGEST:
        raise InputTooLargeError(f"a GraphQL document has at most {LONGEST} characters")
    try:
        return parse(text, max_tokens=_MOST_TOKENS, **options)
    except (GraphQLError, RecursionError, ValueError) as error:
        raise InputError(f"not a valid GraphQL document: {error}") from error


def argument_values(
    arguments: Iterable[tuple[str, ValueNode]], variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a field with the variables put in. Raises InputError."""
    try:
        return {name: value_from_ast_untyped(node, dict(variables)) for name, node in arguments}
    except (ValueError, RecursionError) as error:  # a number of thousands of digits
        raise InputError(f"an argument cannot be read: {error}") from error


def check_cost(document: DocumentNode) -> None:
    """Raise InputTooLargeError for a document whose execution could take long.

    Each alias may be one more call of the same kind, and fragments within fragments multiply.
    """
    cost = _Cost(
        {
            node.name.value: node.selection_set
            for node in document.definitions
            if isinstance(node, FragmentDefinitionNode)
        }
    )
    for node in document.definitions:
        if isinstance(node, OperationDefinitionNode):
            fields, aliases = cost.of(node.selection_set)
            if fields > _MOST_FIELDS:
                raise InputTooLargeError(f"the document asks for more than {_MOST_FIELDS} fields")
            if aliases > _MOST_ALIASES:
                raise InputTooLargeError(f"the document has more than {_MOST_ALIASES} aliases")


class _Cost:
    """Counts fields and aliases, those of fragments each time that they are used."""

    def __init__(self, fragments: Mapping[str, SelectionSetNode]) -> None:
        self._fragments = fragments
        self._known: dict[str, tuple[int, int]] = {}

    def of(self, selected: SelectionSetNode | None, depth: int = 1) -> tuple[int, int]:
        """Return the number of fields and of aliases among them."""
        if selected is None:
            return 0, 0
        if depth > _DEEPEST:
            raise InputTooLargeError(f"the document is nested more than {_DEEPEST} deep")
        fields = aliases = 0
        for node in selected.selections:
            more = 0, 0
            if isinstance(node, FragmentSpreadNode):
                more = self._of_fragment(node.name.value, depth)
            elif isinstance(node, FieldNode | InlineFragmentNode):
                more = self.of(node.selection_set, depth + 1)
            fields += more[0] + isinstance(node, FieldNode)
            aliases += more[1] + (isinstance(node, FieldNode) and node.alias is not None)
        return fields, aliases

    def _of_fragment(self, name: str, depth: int) -> tuple[int, int]:
        if name not in self._known:
            # One that uses itself is refused by validation.
            self._known[name] = 0, 0
            self._known[name] = self.of(self._fragments.get(name), depth + 1)
        return self._known[name]
