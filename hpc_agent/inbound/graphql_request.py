"""A GraphQL request over HTTP: one document with its variables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.json_text import loads_object


@dataclass(frozen=True, slots=True)
class GraphQLRequest:
    """What a client posts; ``operation`` chooses one of a document that has several."""

    document: str
    variables: Mapping[str, Any]
    operation: str | None = None

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises InputError, InputTooLargeError."""
        content = loads_object(body)
        document, variables = content.get("query"), content.get("variables") or {}
        operation = content.get("operationName") or None
        if not isinstance(document, str) or not isinstance(variables, dict):
            raise InputError(
                "the body must be a JSON object with a GraphQL document in `query` and an object "
                "in `variables`"
            )
        if operation is not None and not isinstance(operation, str):
            raise InputError("`operationName` must be text")
        return cls(document, variables, operation)

    @property
    def body(self) -> bytes:
        """The document and its variables as JSON."""
        return json.dumps({"query": self.document, "variables": self.variables}).encode()
