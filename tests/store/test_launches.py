"""How a run was launched, as it is kept for its further attempts."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from sqlite_utils import Database

from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.store import launches
from tests.workers import a_launch

RUN = a_launch(
    "r1",
    tags={"dagster-hpc/mem": "1G"},
    code_origin={"repository_origin": {"executable_path": "/opt/python"}},
    steps=(("fit", {"dagster-hpc/time": "5"}),),
)


def kept(db: Database) -> dict[str, Any]:
    (text,) = db.execute("SELECT arguments FROM launches").fetchone()
    return dict(json.loads(text))


def in_json(run: RunToLaunch | None) -> str:
    """Return what a run says, whether its sequences are lists or tuples."""
    return json.dumps(asdict(run) if run is not None else None)


def rewrite(db: Database, content: object) -> None:
    """Let another version have kept it."""
    db.execute("UPDATE launches SET arguments = ?", [json.dumps(content)])


def test_run_is_found_as_it_was_kept(db: Database) -> None:
    """But for its selection, which is large and serves the first attempt alone."""
    launches.keep(db, a_launch("r2", selection={"large": 1}), "prod")
    assert in_json(launches.find(db, "r2")) == in_json(a_launch("r2"))
    launches.keep(db, RUN, "prod")
    assert in_json(launches.find(db, "r1")) == in_json(RUN)
    assert launches.find(db, "r3") is None


def test_what_a_newer_version_has_kept_is_read(db: Database) -> None:
    """An agent that was upgraded and is taken back goes on with its runs."""
    launches.keep(db, RUN, "prod")
    rewrite(db, kept(db) | {"priority": 3})
    assert in_json(launches.find(db, "r1")) == in_json(RUN)


def test_what_an_older_version_has_kept_is_read(db: Database) -> None:
    """It did not know of steps."""
    launches.keep(db, RUN, "prod")
    older = kept(db)
    del older["steps"], older["status"]
    rewrite(db, older)
    assert in_json(launches.find(db, "r1")) == in_json(
        a_launch("r1", tags=RUN.tags, code_origin=RUN.code_origin)
    )


@pytest.mark.parametrize("content", [{}, [], {"run_id": "r1", "job_name": 3}])
def test_what_cannot_be_read_is_not_known(db: Database, content: object) -> None:
    """Who asks says so, and goes on with other runs."""
    launches.keep(db, RUN, "prod")
    rewrite(db, content)
    assert launches.find(db, "r1") is None
