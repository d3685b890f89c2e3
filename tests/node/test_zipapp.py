"""The zipapp: the same for the same sources, and readable by any Python 3."""

from __future__ import annotations

import ast
import sys
import zipfile
from pathlib import Path

from hpc_agent.jobs.node_program import build_node_program

PACKAGE = Path(__file__).parents[2] / "hpc_agent" / "node"


def test_building_twice_gives_the_same_file(tmp_path: Path) -> None:
    """Name and bytes depend on the sources alone; a second build touches nothing."""
    first = build_node_program(tmp_path / "a")
    second = build_node_program(tmp_path / "b")
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()
    before = first.stat().st_mtime_ns
    assert build_node_program(tmp_path / "a").stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "a").iterdir()] == [first.name]


def test_it_holds_the_whole_package(tmp_path: Path) -> None:
    """Every module is there, under a name that nothing else has."""
    with zipfile.ZipFile(build_node_program(tmp_path)) as archive:
        names = set(archive.namelist())
    modules = {f"hpc_agent_node/{path.relative_to(PACKAGE)}" for path in PACKAGE.rglob("*.py")}
    assert names == modules | {"__main__.py"}


def test_it_needs_the_standard_library_only() -> None:
    """Imports are relative or of the standard library."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                assert module.split(".")[0] in sys.stdlib_module_names, (path.name, module)
