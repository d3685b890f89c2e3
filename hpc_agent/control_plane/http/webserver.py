"""Documents that are the webserver's: ``dagster-cloud job launch``, and whatever scripts ask.

Dagster+ serves its UI's GraphQL and the agent API at one address, with one token. Here the stock
webserver beside the gateway answers the former; who has a user's token may ask it through us.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from graphql import FieldNode, GraphQLSchema, OperationDefinitionNode

from hpc_agent.control_plane.roles import Role
from hpc_agent.control_plane.store.idempotency import IdempotencyKeys
from hpc_agent.control_plane.store.tokens import Token
from hpc_agent.control_plane.webserver_socket import client, told_of
from hpc_agent.errors import ControlPlaneRefusedError, ControlPlaneUnavailableError
from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.graphql_document import parse_document
from hpc_agent.inbound.graphql_request import GraphQLRequest

TIMEOUT_SECONDS = 120.0
Answer = dict[str, Any]


class WebserverUnreachableError(ControlPlaneUnavailableError):
    """The webserver has got nothing of what was to be sent."""


def is_for_webserver(schema: GraphQLSchema, document: str) -> bool:
    """Tell whether a document asks only for what the agent API does not have."""
    try:
        parsed = parse_document(document)
    except InputError:
        return False  # which is told by who executes it
    roots = [schema.query_type, schema.mutation_type]
    ours = {name for root in roots if root is not None for name in root.fields}
    asked = {
        field.name.value
        for operation in parsed.definitions
        if isinstance(operation, OperationDefinitionNode)
        for field in operation.selection_set.selections
        if isinstance(field, FieldNode)
    }
    return bool(asked) and not any(name in ours or name.startswith("__") for name in asked)


class Webserver:
    """Sends documents on to the webserver of this control plane."""

    def __init__(self, socket: Path, keys: IdempotencyKeys) -> None:
        self._socket = socket
        self._keys = keys

    async def execute(
        self, asked: GraphQLRequest, role: Role, idempotency_key: str | None
    ) -> Answer:
        """Return the webserver's answer; under a known key, the one that was given before.

        A client whose connection broke repeats a launch under its key, maybe at another gateway.
        Raises ControlPlaneUnavailableError when there is no webserver or it does not answer.
        """
        send = partial(self._send, asked, role)
        if idempotency_key is not None:
            send = partial(
                self._keys.answer_once, f"webserver:{idempotency_key}", send,
                undone=WebserverUnreachableError,
            )  # fmt: skip
        # In a thread: the launch goes on when the client goes away, and its repetition finds it.
        answer: Answer = json.loads(await asyncio.to_thread(send))
        return answer

    def _send(self, asked: GraphQLRequest, role: Role) -> str:
        try:
            with client(self._socket, TIMEOUT_SECONDS) as webserver:
                answer = webserver.post("/graphql", json=asked.message, headers=told_of(role))
                return json.dumps(answer.json())
        except (OSError, httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise WebserverUnreachableError(
                "this needs the webserver, and none runs beside this gateway (now): start the "
                "control plane with --webserver"
            ) from error
        except (httpx.HTTPError, ValueError) as error:
            raise ControlPlaneUnavailableError(
                f"the webserver does not answer: {error or type(error).__name__}"
            ) from error


def in_deployment(asked: GraphQLRequest, name_of: Callable[[str], str]) -> GraphQLRequest:
    """Return a launch with the location's name as the webserver knows it."""
    params = asked.variables.get("executionParams")
    if not isinstance(params, dict):
        return asked
    selector = params.get("selector")
    if not isinstance(selector, dict) or "repositoryLocationName" not in selector:
        return asked
    named = {**selector, "repositoryLocationName": name_of(selector["repositoryLocationName"])}
    launch = {**asked.variables, "executionParams": {**params, "selector": named}}
    return replace(asked, variables=launch)


def role_of(token: Token) -> Role:
    """Return the role of a user. Raises ControlPlaneRefusedError for an agent's token."""
    if token.role is None:
        raise ControlPlaneRefusedError(
            "launching and watching runs needs a user token: "
            "hpc-agent control-plane token create --kind user"
        )
    return token.role
