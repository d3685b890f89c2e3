"""Definitions: what a code server says of its code location, before it is uploaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_agent.dagster_plus.serdes import Packed, dumps, is_error, packed
from hpc_agent.errors import CodeLocationLoadError
from hpc_agent.grpc.client import CodeServerClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository of a code location; ``snapshot`` is a serialized RepositorySnap, unopened."""

    name: str
    code_pointer: Packed
    snapshot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    """A code location that has loaded."""

    location: str
    deploy_data: Packed
    repositories: Sequence[Repository]
    container_image: str | None
    executable_path: str | None
    library_versions: Mapping[str, str] | None


async def read_definitions(
    server: CodeServerClient, *, location: str, deploy_data: str
) -> Definitions:
    """Ask a code server for everything that is to be uploaded.

    Raises CodeLocationLoadError when the code does not load, and CodeServerError.
    """
    listing = await server.list_repositories()
    if is_error(listing):
        message = str(json.loads(listing).get("message") or "the code does not load")
        raise CodeLocationLoadError(message, listing)
    content: Mapping[str, Any] = json.loads(listing)
    return Definitions(
        location=location,
        deploy_data=json.loads(deploy_data),
        repositories=[
            Repository(
                name=name,
                code_pointer=pointer,
                snapshot=await server.repository(repository_origin(location, name)),
            )
            for name, pointer in content["repository_code_pointer_dict"].items()
        ],
        container_image=content.get("container_image"),
        executable_path=content.get("executable_path"),
        library_versions=content.get("dagster_library_versions"),
    )


def repository_origin(location: str, repository: str) -> str:
    """Return a serialized RemoteRepositoryOrigin."""
    return dumps(
        packed(
            "ExternalRepositoryOrigin",
            repository_location_origin=packed(
                "RegisteredRepositoryLocationOrigin", location_name=location
            ),
            repository_name=repository,
        )
    )


def job_snapshot(serialized_job_data: str) -> str:
    """Return the job snapshot inside a JobDataSnap, character by character as Dagster wrote it.

    Its SHA-1 is the snapshot's id, so the text must not change: Python's own JSON separators and
    the order of keys are what ``serialize_value`` uses.
    """
    return json.dumps(json.loads(serialized_job_data)["pipeline_snapshot"])
