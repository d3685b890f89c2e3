"""What a code location says of the version that is to take the place of the one shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin
from dagster._core.workspace.workspace import (
    CodeLocationEntry,
    CodeLocationLoadStatus,
    CurrentWorkspace,
    DefinitionsSource,
)

from hpc_agent.control_plane.agents_seen import AgentsSeen
from hpc_agent.control_plane.faces.standing import update_text, waiting_text
from hpc_agent.control_plane.faces.view import error_info
from hpc_agent.control_plane.store.agents import Agent, CodeServer
from hpc_agent.control_plane.store.locations import Location
from hpc_agent.control_plane.updates import KEY, UpdatesShown, write_updates

LOADED = Location(
    deployment="prod",
    name="here",
    agent_queue=None,
    deploy_data="{}",
    updated_at=100.0,
    uploaded_for=100.0,
    manifest="{}",
    error=None,
)
REDEPLOYED = replace(LOADED, updated_at=200.0)
WORDS = "job 7, PENDING (Resources), in the queue of partition p since 14:03 UTC"
SERVER = CodeServer(location="here", status="STARTING", message=WORDS, version=200.0)
AGENT = Agent(
    deployment="prod",
    agent_id="a1",
    token_id="t",
    label="hpc1",
    agent_type=None,
    heartbeat_at=90.0,
    heartbeat="{}",
    errors="[]",
)
THERE = AgentsSeen(is_any_alive=True, last=AGENT)
AWAY = AgentsSeen(is_any_alive=False, last=AGENT)


def test_loaded_location_awaits_nothing() -> None:
    """Nor does one that was never loaded: its error says what it waits for."""
    assert update_text(LOADED, SERVER, THERE) is None
    assert update_text(replace(REDEPLOYED, manifest=None), SERVER, THERE) is None


def test_redeploy_says_when_it_was_and_how_it_stands() -> None:
    """In the agent's words."""
    text = f"a newer version, deployed at 1970-01-01 00:03:20 UTC, loads: {WORDS}"
    assert update_text(REDEPLOYED, SERVER, THERE) == text
    assert update_text(replace(REDEPLOYED, error="{}"), SERVER, THERE) == text


def test_words_of_an_older_version_are_not_told_of_a_newer_one() -> None:
    """Until the agent has come to the deploy."""
    text = update_text(REDEPLOYED, replace(SERVER, version=100.0), THERE)
    assert text is not None
    assert text.endswith("an agent is connected and has not reported a code server for it")


def test_agent_that_is_away_is_told_with_its_last_words() -> None:
    """They are dated, since nobody knows what has become of the job."""
    last = "no agent is connected; the last heartbeat, of agent hpc1, came at 1970-01-01 00:01:30"
    assert f"{last} UTC and said: {WORDS}" in str(update_text(REDEPLOYED, SERVER, AWAY))
    never_loaded = replace(REDEPLOYED, manifest=None)
    assert waiting_text(never_loaded, None, AWAY).endswith(f"{last} UTC")


def test_server_that_failed_and_starts_again_is_told() -> None:
    """Beside its error, which is that of the last attempt."""
    failed = replace(LOADED, error="{}")
    assert update_text(failed, SERVER, THERE) == f"its code server is started again: {WORDS}"
    assert update_text(failed, replace(SERVER, status="FAILED"), THERE) is None


@pytest.mark.parametrize("has_error", [False, True])
def test_workspace_shows_the_update(tmp_path: Path, has_error: bool) -> None:
    """As loading, among the metadata; an error stays, which the UI hides of what loads."""
    origin = RegisteredCodeLocationOrigin("here")
    entry = CodeLocationEntry(
        origin=origin,
        code_location=None,
        load_error=error_info("no") if has_error else None,
        load_status=CodeLocationLoadStatus.LOADED,
        display_metadata={"socket": "/s"},
        update_timestamp=1.0,
        version_key="v",
        definitions_source=DefinitionsSource.CODE_SERVER,
    )
    workspace = CurrentWorkspace({"here": entry, "there": entry})
    shown = UpdatesShown(tmp_path / "updates.json")
    assert shown.within(workspace) is workspace
    write_updates(tmp_path / "updates.json", {"here": WORDS})
    seen = shown.within(workspace).code_location_entries
    assert seen["here"].display_metadata == {"socket": "/s", KEY: WORDS}
    status = CodeLocationLoadStatus.LOADED if has_error else CodeLocationLoadStatus.LOADING
    assert (seen["here"].load_status, seen["there"]) == (status, entry)
    assert json.loads(seen["here"].version_key) == ["v", WORDS]
    assert shown.within(workspace) is shown.within(workspace)
    write_updates(tmp_path / "updates.json", {})
    assert shown.within(workspace) is workspace
