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
        return cls.of(loads_object(body))

    @classmethod
    def of(cls, content: object) -> Self:
        """Take a message that has been parsed. Raises InputError."""
        if not isinstance(content, dict):
            raise InputError("a GraphQL request is one JSON object")
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
    def message(self) -> dict[str, Any]:
        """The request anew, of what was understood."""
        message = {"query": self.document, "variables": self.variables}
        return message if self.operation is None else {**message, "operationName": self.operation}

    @property
    def body(self) -> bytes:
        """The same as JSON."""
        return json.dumps(self.message).encode()
