"""What a GraphQL mutation was about, for the audit log. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hpc_agent.control_plane.audit.entry import Action, Actor, Entry, Outcome
from hpc_agent.control_plane.documents import Mutation
from hpc_agent.control_plane.roles import HARMLESS, LAUNCHES, TERMINATIONS

DEPLOYS = frozenset({
    "addOrUpdateLocationFromDocument", "createOrUpdateBranchDeployment", "deleteDeployment",
    "deleteLocation", "deployLocations", "reconcileLocationsFromDocument",
})  # fmt: skip
# Names only: a run's config and tags may hold secrets.
SUBJECTS = frozenset({
    "assetKey", "assetKeys", "backfillId", "branchName", "concurrencyKey", "deploymentName",
    "jobName", "locationName", "location_name", "parentRunId", "path", "pipelineName", "repoName",
    "repositoryLocationName", "repositoryName", "runId", "runIds", "scheduleName", "sensorName",
    "stateId",
})  # fmt: skip
FAILURES = ("Error", "Failure", "Invalid", "Conflict", "NotFound", "NotSupported")
"""How the names of result types end that say no (dagster_graphql/schema)."""

MAX_DEPTH = 8
MAX_VALUES = 20
MAX_CHARACTERS = 120


def entries_of(
    actor: Actor,
    mutations: Sequence[Mutation],
    variables: Mapping[str, Any],
    *,
    answer: object = None,
    outcome: Outcome | None = None,
) -> list[Entry]:
    """Return an entry for each mutation; without ``outcome`` the answer decides."""
    results = answer.get("data") if isinstance(answer, Mapping) else None
    entries = []
    for mutation in mutations:
        if mutation.name in HARMLESS:
            continue
        result = results.get(mutation.key) if isinstance(results, Mapping) else None
        about: dict[str, list[str]] = {}
        for name, value in _subjects({"": mutation.values(variables), " ": result}, MAX_DEPTH):
            values = about.setdefault(name, [])
            if value not in values and len(values) < MAX_VALUES:
                values.append(value)
        entries.append(
            Entry(
                action=action_of(mutation.name), actor=actor, what=mutation.name, about=about,
                outcome=outcome or outcome_of(result),
            )
        )  # fmt: skip
    return entries


def action_of(name: str) -> Action:
    if name in LAUNCHES:
        return Action.LAUNCH
    if name in TERMINATIONS:
        return Action.TERMINATE
    return Action.DEPLOY if name in DEPLOYS else Action.MUTATION


def outcome_of(result: object) -> Outcome:
    """Tell from the result of a mutation whether it was done: no result means that it raised."""
    if result is None:
        return Outcome.FAILED
    kind = result.get("__typename") if isinstance(result, Mapping) else None
    return Outcome.FAILED if isinstance(kind, str) and kind.endswith(FAILURES) else Outcome.OK


def _subjects(value: object, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the names in arguments and results, wherever they stand."""
    if depth == 0:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in SUBJECTS and _is_plain(inner):
                yield key, _text(inner)
            else:
                yield from _subjects(inner, depth - 1)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value[:MAX_VALUES]:
            yield from _subjects(inner, depth - 1)


def _is_plain(value: object) -> bool:
    is_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return isinstance(value, str) or is_list


def _text(value: object) -> str:
    text = value if isinstance(value, str) else "/".join(value)  # type: ignore[arg-type]
    return text[:MAX_CHARACTERS]
