"""GraphQL documents as the scope sees them: a flat list of calls. Pure.

Every document of the stock ``dagster-cloud`` storages has one operation with one field per level,
``mutation { eventLogs { StoreEvent(…) } }``: what is written otherwise is refused, not interpreted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphql import (
    FieldNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
)

from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.graphql_document import argument_values, check_cost, parse_document
from hpc_agent.outgoing.graphql_answer import Path

# Roots that group calls; the fields of other roots are plain data.
GROUPS = frozenset({"runs", "eventLogs", "schedules", "defsState"})
# Those of dagster are far shorter; a body of a job may be one of megabytes, each time another.
_LONGEST_CACHED = 32_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call, for example ``mutation eventLogs.StoreEvent``; ``name`` is "" for plain roots.

    ``result``: where the answer holds the call's.
    """

    operation: str
    root: str
    name: str
    arguments: tuple[tuple[str, ValueNode], ...]
    result: Path

    def __str__(self) -> str:
        return f"{self.operation} {self.root}{'.' if self.name else ''}{self.name}"

    def values(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with the variables put in. Raises InputError."""
        return argument_values(self.arguments, variables)


def calls(document: str) -> tuple[Call, ...]:
    """Return the calls of a document. Raises InputError."""
    return _cached(document) if len(document) <= _LONGEST_CACHED else _calls(document)


@lru_cache(maxsize=512)
def _cached(document: str) -> tuple[Call, ...]:
    return _calls(document)


def _calls(document: str) -> tuple[Call, ...]:
    tree = parse_document(document, no_location=True)
    check_cost(tree)
    operations = [n for n in tree.definitions if isinstance(n, OperationDefinitionNode)]
    if len(operations) != 1:
        raise InputError("a document must have exactly one operation")
    operation = operations[0]
    kind = operation.operation.value
    if kind not in ("query", "mutation"):
        raise InputError(f"a {kind} is not let through")
    if any(v.default_value is not None for v in operation.variable_definitions):
        raise InputError("variables must not have default values")
    found: list[Call] = []
    for root in _fields(operation.selection_set):
        if root.name.value in GROUPS:
            found += [_call(kind, field, within=root) for field in _fields(root.selection_set)]
        else:
            found.append(_call(kind, root))
    return tuple(found)


def _call(operation: str, field: FieldNode, within: FieldNode | None = None) -> Call:
    arguments = tuple((a.name.value, a.value) for a in field.arguments)
    if len({name for name, _ in arguments}) != len(arguments):
        raise InputError(f"{field.name.value} has an argument twice")
    return Call(
        operation=operation,
        root=(within or field).name.value,
        name=field.name.value if within else "",
        arguments=arguments,
        result=(_response_name(within), _response_name(field))
        if within
        else (_response_name(field),),
    )


def _response_name(field: FieldNode) -> str:
    return (field.alias or field.name).value


def _fields(selection: SelectionSetNode | None) -> list[FieldNode]:
    if selection is None or not selection.selections:
        raise InputError("a call is missing")
    fields = [node for node in selection.selections if isinstance(node, FieldNode)]
    if len(fields) != len(selection.selections):
        raise InputError("fragments are let through below the calls only")
    if any(field.directives for field in fields):
        raise InputError("directives on calls are not let through")
    return fields
