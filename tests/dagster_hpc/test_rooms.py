"""The library's imports go one way, and what it has in common with the agent is alike."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import pytest
from dagster_hpc.jobs import JobRequest, JobStatus

import dagster_hpc
from hpc_agent.relay.step_requests import AskedJob, StepStatus

ROOT = Path(dagster_hpc.__file__).parent
# From top to bottom; what stands in one row imports nothing of its neighbours.
ORDER = (
    ("steps", "commands"),
    ("launchers",),
    ("unwanted", "options"),
    ("jobs", "options_table"),
)


def imported(path: Path) -> set[str]:
    """Return what a module imports of the library, by its first name."""
    return {
        node.module.split(".")[1]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and node.module
        and node.module.startswith("dagster_hpc.")
    }


@pytest.mark.parametrize(("level", "name"), [(n, x) for n, row in enumerate(ORDER) for x in row])
def test_imports_go_down(level: int, name: str) -> None:
    """Also those within functions."""
    below = {other for row in ORDER[level + 1 :] for other in row} | {name}
    room = ROOT / name
    modules = list(room.rglob("*.py")) if room.is_dir() else [ROOT / f"{name}.py"]
    assert modules
    assert {str(each): imported(each) - below for each in modules if imported(each) - below} == {}


def test_every_room_has_its_place() -> None:
    """A new one is put into the order."""
    there = {each.stem for each in ROOT.iterdir() if each.suffix == ".py" or each.is_dir()}
    assert there - {"__init__", "__pycache__"} == {name for row in ORDER for name in row}


def test_agent_and_library_say_the_same_of_a_job() -> None:
    """Each field of the one is understood by the other."""
    names = {"name", "attempt"}
    assert {each.name for each in fields(JobStatus)} - {"job"} | names == set(
        StepStatus.model_fields
    )
    assert {each.name for each in fields(JobRequest)} - {"job"} | names == set(
        AskedJob.model_fields
    )
