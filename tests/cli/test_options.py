"""``hpc-agent options``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hpc_agent.cli.options import app
from hpc_agent.errors import ConfigError, HpcAgentError
from hpc_agent.jobs import options
from hpc_agent.jobs.options import Source
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import WorkerKind
from tests.workers import a_worker, put


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return an agent.yaml with options at several places."""
    path = tmp_path / "agent.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "control_plane": {"url": "https://cp.example"},
                "work_dir": str(tmp_path / "work"),
                "home": str(tmp_path / "home"),
                "options": {"partition": "batch", "mem": "1G"},
                "branch_deployments": {"options": {"partition": "debug"}},
                "locations": {"here": {"run_options": {"mem": "2G"}}},
                "policy": {"max": {"mem": "8G"}},
            }
        )
    )
    return path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def explained(*arguments: str) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads(run("explain", "--json", *arguments))
    return content


def test_list_shows_options_values_and_tags() -> None:
    """For people, for scripts, and for the documentation."""
    assert "dagster-hpc/gres" in run("list")
    assert {"option": "qos"}.items() <= next(
        row for row in json.loads(run("list", "--json")) if row["option"] == "qos"
    ).items()
    assert run("list", "--markdown").startswith("| option |")


def test_location_is_explained_by_agent_yaml(config: Path) -> None:
    """What its code server and its runs would get now, with what was overridden."""
    server, runs = explained("here", "--config", str(config))
    assert [row["value"] for row in server["settings"]] == ["1G", "batch"]
    assert runs["settings"][0] == {
        "option": "mem",
        "value": "2G",
        "source": "agent.yaml locations.here.run_options",
        "overridden": [
            {
                "option": "mem",
                "value": "1G",
                "source": "agent.yaml options",
                "overridden": [],
                "why": [],
            }
        ],
        "why": [],
    }
    branch = explained("here", "--config", str(config), "--deployment", "pr-7")
    assert branch[0]["settings"][1]["value"] == "debug"
    assert "1G (agent.yaml options)" in run("explain", "here", "--config", str(config))


async def test_run_is_explained_as_it_was_submitted(config: Path, tmp_path: Path) -> None:
    """Whatever agent.yaml says by now."""
    settings = options.merge([Source("then", {"mem": "3G"}), Source("run tags", {"mem": "4G"})])
    worker = a_worker(
        key="run-1",
        kind=WorkerKind.RUN_WORKER,
        phase=Phase.QUEUED,
        deployment="prod",
        location="here",
        run_id="r-1",
        job_id="17",
        created_at=time.time(),
        settings=options.to_json(settings),
        pool="warm",
    )
    store = Store(tmp_path / "home")
    await store.open()
    await store.run(lambda db: put(db, worker))
    await store.close()
    for name in ("r-1", "17", "run-1"):
        (found,) = explained(name, "--config", str(config))
        assert found["settings"][0]["source"] == "run tags"
        assert found["settings"][0]["overridden"][0]["value"] == "3G"
        assert found["notes"] == [
            "its place is a slot of pool warm, which agent.yaml has no more, and not these options"
        ]
    in_a_pool(config)
    (found,) = explained("r-1", "--config", str(config))
    assert found["notes"] == [
        "its place is a slot of pool warm (2 CPUs, 500 MB), and not these options"
    ]


def test_unknown_name_is_told_what_to_give(config: Path) -> None:
    """Neither a run nor a location."""
    with pytest.raises(HpcAgentError, match="no run and no code location"):
        run("explain", "nowhere", "--config", str(config))


def test_location_that_breaks_the_policy_is_told(config: Path) -> None:
    """The same error that its runs would fail with."""
    config.write_text(config.read_text().replace("mem: 2G", "mem: 9G"))
    with pytest.raises(ConfigError, match=r"policy\.max\.mem"):
        run("explain", "here", "--config", str(config))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ([], "each gets a slot of pool warm (2 CPUs, 500 MB), and not these options"),
        (["dagster-hpc/mem=3G"], "each gets a job of its own, with these options"),
        (["dagster-hpc/execution=job"], "each gets a job of its own, with these options"),
    ],
    ids=["slot", "asks", "job"],
)
def test_location_with_a_pool_says_where_its_runs_execute(
    config: Path, tags: list[str], words: str
) -> None:
    """The options shown are those of a job: a slot has none of them."""
    in_a_pool(config)
    given = [word for tag in tags for word in ("--tag", tag)]
    _, runs = explained("here", "--config", str(config), *given)
    assert any(note.startswith(words) for note in runs["notes"]), runs["notes"]


def test_tag_that_no_pool_can_serve_is_refused_as_by_a_launch(config: Path) -> None:
    """With what stands in the way."""
    in_a_pool(config)
    tags = ["--tag", "dagster-hpc/execution=pool", "--tag", "dagster-hpc/mem=3G"]
    with pytest.raises(ConfigError, match="cannot execute in pool warm: it asks for mem"):
        explained("here", "--config", str(config), *tags)


def in_a_pool(config: Path) -> None:
    """Give the location a pool."""
    content = yaml.safe_load(config.read_text())
    content["pools"] = {"warm": {"slot": {"cpus": 2, "memory_mb": 500}}}
    content["locations"]["here"]["pool"] = "warm"
    config.write_text(yaml.safe_dump(content))
