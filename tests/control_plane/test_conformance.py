"""``control-plane conformance``, as an operator types it: what it finds, and its exit code."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from graphql import print_schema

from hpc_agent.control_plane.graphql.executor import make_schema
from tests.control_plane.running import CLI

NEW_DOCUMENT = 'TEA_QUERY = """\nquery Tea { teapots { isHot } }\n"""\n'


def conformance(*options: str, path: Path | None = None) -> tuple[int, dict[str, Any]]:
    """Run the command, with ``path`` searched for packages first. Returns exit code and report."""
    done = subprocess.run(
        [*CLI, "conformance", "--json", *options],
        env={**os.environ, **({"PYTHONPATH": str(path)} if path else {})},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def write_sdl(file: Path, *, without: str | None = None) -> str:
    """Write our schema, without the lines that start so."""
    lines = print_schema(make_schema()).splitlines()
    kept = [each for each in lines if without is None or not each.strip().startswith(without)]
    assert without is None or len(kept) < len(lines)
    file.write_text("\n".join(kept))
    return str(file)


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_everything_holds_or_has_a_reason() -> None:
    """Exit code 0: the installed client works against this gateway, row by row."""
    code, report = conformance()

    assert report["failures"] == []
    assert code == 0
    names = [section["name"] for section in report["sections"]]
    assert names == [
        "GraphQL documents, valid", "storage calls", "storage methods", "REST and agent calls",
        "GraphQL documents, executed", "dagster-cloud commands", "request types",
    ]  # fmt: skip
    requests = report["sections"][-1]
    assert (requests["right"], requests["excused"]) == (13, 6)
    for section in report["sections"]:
        assert section["right"] > 0, section
        assert section["right"] + section["excused"] == section["found"], section


def test_schema_that_is_complete_holds(tmp_path: Path) -> None:
    """What ``control-plane schema`` prints is enough for every document."""
    code, report = conformance("--schema", write_sdl(tmp_path / "whole.graphql"))

    assert (code, report["failures"]) == (0, [])


def test_schema_that_lacks_a_field_falls_short(tmp_path: Path) -> None:
    """Exit code 1, and the report names the document and the field."""
    file = write_sdl(tmp_path / "short.graphql", without="popUserCloudAgentRequests")

    code, report = conformance("--schema", file)

    assert code == 1
    assert any(
        "GET_USER_CLOUD_REQUESTS_QUERY" in each and "'popUserCloudAgentRequests'" in each
        for each in report["failures"]
    )
    (section,) = report["sections"]
    assert section["right"] + section["excused"] < section["found"]


def test_document_of_a_new_release_falls_short(tmp_path: Path) -> None:
    """A client that has learnt to ask for something else is found by itself."""
    installed = importlib.util.find_spec("dagster_cloud")
    assert installed is not None
    assert installed.origin is not None
    shutil.copytree(Path(installed.origin).parent, tmp_path / "dagster_cloud")
    (tmp_path / "dagster_cloud" / "teapot.py").write_text(NEW_DOCUMENT)

    code, report = conformance("--schema", write_sdl(tmp_path / "a.graphql"), path=tmp_path)

    assert code == 1
    (failure,) = report["failures"]
    assert "dagster_cloud.teapot.TEA_QUERY" in failure
    assert "'teapots'" in failure


def test_file_without_a_schema_is_told(tmp_path: Path) -> None:
    """The message says what the file should have held."""
    file = tmp_path / "notes.txt"
    file.write_text("type {")

    done = subprocess.run(
        [*CLI, "conformance", "--schema", str(file)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "is no GraphQL schema" in done.stderr
    assert "hpc-agent control-plane schema" in done.stderr
