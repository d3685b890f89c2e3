"""Every GraphQL document in the installed ``dagster_cloud`` and ``dagster_cloud_cli`` packages."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from graphql import GraphQLError, OperationDefinitionNode, parse

PACKAGES = ("dagster_cloud", "dagster_cloud_cli")

ELSEWHERE: Mapping[str, str] = {
    "dagster_cloud.anomaly_detection": "asks a prediction service of Dagster+",
    "dagster_cloud.dagster_insights": "writes cost metrics into Insights, a product of Dagster+",
    "dagster_cloud_cli.core.pex_builder": "deploys to serverless, where Dagster+ is the cluster",
}
"""Modules whose documents are for services of Dagster+ that no agent or run worker needs."""

COMMANDS_ELSEWHERE: Mapping[str, str] = {
    "ALERT_POLICIES_QUERY": "alert policies are a product of Dagster+",
    "RECONCILE_ALERT_POLICIES_FROM_DOCUMENT_MUTATION": "alert policies are a product of Dagster+",
    "SET_ORGANIZATION_SETTINGS_MUTATION": "there is no organization above the deployments here",
    "ORGANIZATION_SETTINGS_QUERY": "there is no organization above the deployments here",
    "SET_DEPLOYMENT_SETTINGS_MUTATION": "settings are in dagster.yaml of the control plane",
    "GET_ECR_CREDS_QUERY": "serverless: a registry of Dagster+",
    "SET_ATLAN_INTEGRATION_SETTINGS_MUTATION": "Atlan is an integration of Dagster+",
    "DELETE_ATLAN_INTEGRATION_SETTINGS_MUTATION": "Atlan is an integration of Dagster+",
    "GET_ATLAN_INTEGRATION_SETTINGS_QUERY": "Atlan is an integration of Dagster+",
    "ATLAN_INTEGRATION_PREFLIGHT_CHECK_QUERY": "Atlan is an integration of Dagster+",
}
"""Documents of ``dagster_cloud_cli.gql`` that have nothing to act on here."""

FROM_WEBSERVER = frozenset({"LAUNCH_RUN_MUTATION", "GET_RUN_STATUS_QUERY"})
"""Documents that the stock webserver answers through the gateway (http/webserver.py)."""

_OPERATION = re.compile(r"^\s*(query|mutation|subscription)\s+(\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document as the client sends it, fragments included."""

    module: str
    name: str
    text: str

    @property
    def operations(self) -> frozenset[str]:
        return operation_names(self.text)

    @property
    def is_command(self) -> bool:
        """Whether the ``dagster-cloud`` command sends it, rather than agents and jobs."""
        return self.module.startswith("dagster_cloud_cli")

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@lru_cache(1)
def documents() -> tuple[Document, ...]:
    """Return all documents that concern us, sorted. Raises LookupError for a hidden one.

    The source says which modules hold documents, so that a new module is found; their attributes
    hold the whole text. A document that is in the source only, inside a function for example,
    must not go unnoticed.
    """
    found: list[Document] = []
    for module_name, operations in _modules():
        module = importlib.import_module(module_name)
        here = list(_documents_of(module))
        hidden = operations - {name for document in here for name in document.operations}
        if hidden:
            raise LookupError(f"{module_name}: documents {sorted(hidden)} are no module attributes")
        found += here
    return tuple(sorted(_without_reimports(found), key=str))


def agent_documents() -> list[Document]:
    """Return what agents, code servers and run workers send."""
    return [document for document in documents() if not document.is_command]


def command_documents() -> list[Document]:
    """Return what the ``dagster-cloud`` command sends here."""
    return [
        document
        for document in documents()
        if document.is_command and document.name not in COMMANDS_ELSEWHERE
    ]


@lru_cache(1024)
def operation_names(text: str) -> frozenset[str]:
    """Return the operations that a text defines; none when it is no GraphQL."""
    try:
        parsed = parse(text)
    except GraphQLError:
        return frozenset()
    return frozenset(
        node.name.value
        for node in parsed.definitions
        if isinstance(node, OperationDefinitionNode) and node.name is not None
    )


def _modules() -> Iterator[tuple[str, set[str]]]:
    """Yield the modules whose source holds operations, and the names of these."""
    for package in PACKAGES:
        root = Path(next(iter(importlib.import_module(package).__path__)))
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root.parent).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            if not name.startswith(tuple(ELSEWHERE)) and (found := _operations_in(path)):
                yield name, found


def _operations_in(path: Path) -> set[str]:
    source = path.read_text(encoding="utf-8")
    if not _OPERATION.search(source):
        return set()
    strings = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    # A docstring that talks of queries has no selection set.
    return {name for text in strings if "{" in text for _, name in _OPERATION.findall(text)}


def _documents_of(module: ModuleType) -> Iterator[Document]:
    for name, value in vars(module).items():
        if isinstance(value, str) and _OPERATION.search(value) and operation_names(value):
            yield Document(module=module.__name__, name=name, text=value)


def _without_reimports(found: list[Document]) -> Iterator[Document]:
    """Drop what a module only imports from the one that defines it."""
    seen: set[tuple[str, str]] = set()
    for document in sorted(
        found, key=lambda each: (not each.module.endswith("queries"), str(each))
    ):
        if (document.name, document.text) not in seen:
            seen.add((document.name, document.text))
            yield document
