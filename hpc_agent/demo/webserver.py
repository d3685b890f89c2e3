"""The stock webserver's own GraphQL API, through the door, with a user's token."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from hpc_agent.errors import HpcAgentError

FINISHED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})

_LOCATIONS = """
query { workspaceOrError { ... on Workspace { locationEntries {
  name loadStatus
  locationOrLoadError { __typename ... on PythonError { message stack } }
} } } }
"""
_LAUNCH = """
mutation ($parameters: ExecutionParams!) {
  launchRun(executionParams: $parameters) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message stack }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
_RUN = """
query ($run: ID!) { runOrError(runId: $run) { ... on Run {
  runId status tags { key value }
  assetMaterializations { assetKey { path } partition metadataEntries {
    __typename label
    ... on IntMetadataEntry { intValue }
    ... on FloatMetadataEntry { floatValue }
    ... on TextMetadataEntry { text }
    ... on MarkdownMetadataEntry { mdStr }
    ... on UrlMetadataEntry { url }
    ... on PathMetadataEntry { path }
    ... on JsonMetadataEntry { jsonString }
    ... on TableSchemaMetadataEntry { schema { columns { name type } } }
  } }
} } }
"""
_EVENTS = """
query ($run: ID!, $after: String) { logsForRun(runId: $run, afterCursor: $after) {
  ... on EventConnection { cursor hasMore events {
    __typename
    ... on MessageEvent { message timestamp level stepKey }
    ... on LogsCapturedEvent { fileKey }
    ... on RunFailureEvent { error { message } }
    ... on EngineEvent { error { message } }
  } }
} }
"""
_LOGS = """
query ($key: [String!]!) { capturedLogs(logKey: $key) { stdout stderr cursor } }
"""
_TERMINATE = """
mutation ($run: String!, $policy: TerminateRunPolicy) {
  terminateRun(runId: $run, terminatePolicy: $policy) {
  __typename ... on PythonError { message } ... on TerminateRunFailure { message }
} }
"""
_RUNS = """
query ($filter: RunsFilter) { runsOrError(filter: $filter, limit: 100) { ... on Runs {
  results { runId status jobName tags { key value } }
} } }
"""


class Webserver:
    """Calls of one webserver. Raises HpcAgentError for whatever GraphQL calls an error."""

    def __init__(self, url: str, *, token: str, ca: Path) -> None:
        self.url = url
        self.token = token
        self.ca = ca
        self._http = httpx.Client(
            timeout=90,
            verify=ssl.create_default_context(cafile=str(ca)),
            headers={"Authorization": f"Bearer {token}"},
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def query(self, document: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Execute a document and return its data."""
        try:
            response = self._http.post(
                f"{self.url}/graphql", json={"query": document, "variables": variables or {}}
            )
            content = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise HpcAgentError(f"webserver {self.url}: {error}") from error
        if content.get("errors"):
            raise HpcAgentError(f"webserver: {content['errors']}")
        data = content["data"]
        return data if isinstance(data, dict) else {}

    def locations(self) -> dict[str, Any]:
        """Return the code locations by name: None, or the error that each shows."""
        workspace = self.query(_LOCATIONS)["workspaceOrError"]
        found = {}
        for entry in workspace.get("locationEntries", []):
            outcome = entry["locationOrLoadError"] or {
                "__typename": "Loading",
                "message": "loading",
            }
            loaded = outcome["__typename"] == "RepositoryLocation"
            found[entry["name"]] = None if loaded else outcome
        return found

    def launch(
        self,
        location: str,
        job: str,
        *,
        config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        assets: Sequence[str] | None = None,
    ) -> str:
        """Launch a run and return its id."""
        selector: dict[str, Any] = {
            "repositoryLocationName": location,
            "repositoryName": "__repository__",
            "jobName": job,
        }
        if assets is not None:
            selector["assetSelection"] = [{"path": [asset]} for asset in assets]
        launched = self.query(
            _LAUNCH,
            {
                "parameters": {
                    "selector": selector,
                    "runConfigData": config or {},
                    "executionMetadata": {
                        "tags": [
                            {"key": key, "value": value} for key, value in (tags or {}).items()
                        ]
                    },
                }
            },
        )["launchRun"]
        if launched["__typename"] != "LaunchRunSuccess":
            raise HpcAgentError(f"the run could not be launched: {launched}")
        return str(launched["run"]["runId"])

    def run(self, run_id: str) -> dict[str, Any]:
        """Return a run with its status, tags and materializations."""
        found = self.query(_RUN, {"run": run_id})["runOrError"]
        return found if isinstance(found, dict) else {}

    def status(self, run_id: str) -> str:
        """Return a run's status."""
        return str(self.run(run_id).get("status"))

    def finished(self, run_id: str) -> str | None:
        """Return a run's status once it is final."""
        status = self.status(run_id)
        return status if status in FINISHED else None

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """Return the whole event log of a run."""
        events: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = self.query(_EVENTS, {"run": run_id, "after": cursor})["logsForRun"]
            events += page.get("events", [])
            cursor = page.get("cursor")
            if not page.get("hasMore"):
                return events

    def compute_logs(self, run_id: str) -> dict[str, dict[str, str]]:
        """Return the captured standard output and error of each process of a run, by file key."""
        keys = {event["fileKey"] for event in self.events(run_id) if event.get("fileKey")}
        return {
            key: {
                stream: text or ""
                for stream, text in self.query(_LOGS, {"key": [run_id, "compute_logs", key]})[
                    "capturedLogs"
                ].items()
            }
            for key in sorted(keys)
        }

    def terminate(self, run_id: str, *, policy: str | None = None) -> None:
        """Press the button; for a run that is starting, with the box that the UI asks to check."""
        if policy is None:
            starting = self.status(run_id) in {"STARTING", "NOT_STARTED", "CANCELING"}
            policy = "MARK_AS_CANCELED_IMMEDIATELY" if starting else "SAFE_TERMINATE"
        answer = self.query(_TERMINATE, {"run": run_id, "policy": policy})["terminateRun"]
        if answer["__typename"] != "TerminateRunSuccess":
            raise HpcAgentError(f"the run could not be terminated: {answer}")

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        """Return the newest runs that match a RunsFilter."""
        found = self.query(_RUNS, {"filter": filters or None})["runsOrError"]
        return list(found.get("results", []))
