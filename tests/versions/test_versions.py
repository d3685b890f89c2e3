"""One agent and one control plane serve user code on several releases of Dagster at once.

The oldest release is in every run of the tests; ``make versions`` adds the others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.demo.cluster import choose_cluster
from hpc_agent.demo.facts import gather
from hpc_agent.demo.stack import Directories, Stack
from tests.e2e.conftest import say
from tests.versions.environments import NoEnvironmentError, make_environment, python_with

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

OLDEST = "1.11"
NEWER = ("1.12", "1.13")
RELEASES = [
    OLDEST,
    *(pytest.param(release, marks=pytest.mark.versions) for release in NEWER),
]
LIBRARIES = """query ($repository: RepositorySelector!) {
  repositoryOrError(repositorySelector: $repository) { ... on Repository {
    location { dagsterLibraryVersions { name version } }
  } }
}"""


def location_of(release: str) -> str:
    """Return the name of the code location on a release."""
    return f"on_{release.replace('.', '_')}"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose agent has an environment for each location."""
    cluster = choose_cluster("local", tmp_path_factory.mktemp("unused"), say)
    settings = {
        "scheduler": {"poll_seconds": 2},
        "locations": {
            location_of(release): {"environment": {"python": str(python_with(release))}}
            for release in (OLDEST, *NEWER)
        },
    }
    # Not below pytest's tmp_path: a unix socket's path may have 108 characters.
    with tempfile.TemporaryDirectory(prefix="hpc-versions-", ignore_cleanup_errors=True) as path:
        directories = Directories(local=Path(path), shared=Path(path) / "shared")
        started = Stack(cluster, directories, say=say, settings=settings)
        try:
            started.start_control_plane()
            started.configure_agent()
            started.start_agent()
            yield started
        finally:
            started.close()


def serve(stack: Stack, release: str) -> str:
    """Deploy the location on a release, wait until it is loaded, and return its name."""
    make_environment(release)
    location = location_of(release)
    source = {"module_name": "any_version"}
    directory = str(Path(__file__).parent / "location")
    stack.deploy({location: {"code_source": source, "working_directory": directory}})
    stack.wait_loaded(location)
    return location


def dagster_of(stack: Stack, location: str) -> str:
    """Return the release of Dagster that the webserver shows for a location."""
    repository = {"repositoryLocationName": location, "repositoryName": "__repository__"}
    found = stack.webserver.query(LIBRARIES, {"repository": repository})["repositoryOrError"]
    libraries = found["location"]["dagsterLibraryVersions"]
    return next(str(item["version"]) for item in libraries if item["name"] == "dagster")


def errors_of(stack: Stack, run_id: str) -> list[str]:
    """Return what the run's log has of errors, for the message of a failure."""
    events = stack.webserver.events(run_id)
    return [str(event["message"]) + str(event["error"]) for event in events if event.get("error")]


def check_run(stack: Stack, release: str) -> None:
    """Run the job of a location: its result, metadata and output arrive from its environment."""
    location = location_of(release)
    run_id = stack.webserver.launch(location, "tell")
    assert stack.wait_finished(run_id) == "SUCCESS", errors_of(stack, run_id)

    facts = gather(stack, run_id, location=location)
    version = facts.assets["told"]["dagster"]
    assert version.startswith(f"{release}.")
    assert facts.assets["told"]["dagster/row_count"] == 3
    assert facts.assets["told"]["prefix"] == str(python_with(release).parent.parent)
    assert dagster_of(stack, location) == version
    logs = stack.printed(run_id)
    assert f"printed on dagster {version}" in "".join(streams["stdout"] for streams in logs)
    assert f"complained on dagster {version}" in "".join(streams["stderr"] for streams in logs)
    events = stack.webserver.events(run_id)
    messages = "\n".join(str(event.get("message")) for event in events)
    assert f"logged on dagster {version}" in messages
    assert "AssetCheckEvaluationEvent" in {event["__typename"] for event in events}


@pytest.mark.parametrize("release", RELEASES)
def test_user_code_loads_and_runs(stack: Stack, release: str) -> None:
    """User code on each release loads and runs in its own environment."""
    try:
        make_environment(release)
    except NoEnvironmentError as reason:
        pytest.skip(f"no environment with dagster {release}: {reason}")
    serve(stack, release)
    check_run(stack, release)


@pytest.mark.versions
def test_one_agent_serves_all_releases_at_once(stack: Stack) -> None:
    """Locations on each release are loaded at the same time, each from its own environment."""
    locations = {release: serve(stack, release) for release in (OLDEST, *NEWER)}
    shown = stack.webserver.locations()
    assert [shown[location] for location in locations.values()] == [None] * len(locations)
    for release, location in locations.items():
        assert dagster_of(stack, location).startswith(f"{release}.")
