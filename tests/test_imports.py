"""Imports go one way: a package of hpc_agent imports what stands below it, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hpc_agent"

# From top to bottom. What stands in one row imports nothing of its neighbours.
ORDER: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("setup",),
    ("demo", "doctor", "manual"),
    ("agent", "inspection"),
    ("pools", "steps"),
    ("runs",),
    ("cluster", "code_servers"),
    ("relay", "workers"),
    ("jobs",),
    ("store",),
    ("dagster_plus", "slurm", "conformance"),
    ("config", "grpc", "outgoing", "control_plane"),
    ("metrics", "traces"),
    ("backup", "clock", "files", "inbound", "isolation", "service"),
    ("journal",),
    ("account", "hostile_files", "private_directories", "private_files"),
    ("descriptors", "doorbell", "errors", "hints", "redaction", "releases", "seldom", "tls"),
)
ALONE = frozenset({"node"})
LOAD_DAGSTER = frozenset({"conformance", "control_plane", "demo"})
DAGSTER = re.compile(r"dagster(_\w+)?$")


@dataclass(frozen=True, slots=True)
class Import:
    """One import of a module, and where it is written."""

    module: str
    where: str


def test_every_package_has_its_place() -> None:
    """A new one is put where it belongs, here and in CONTRIBUTING.md."""
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or is_package(path)}
    placed = [name for row in ORDER for name in row]
    assert len(placed) == len(set(placed))
    assert there - {"__init__"} == set(placed) | ALONE


@pytest.mark.parametrize("name", [name for row in ORDER for name in row])
def test_package_imports_downwards(name: str) -> None:
    """Also within functions: a late import hides a circle, and does not undo it."""
    level = level_of(name)
    wrong = [
        f"{each.where} imports {each.module}"
        for each in imports_of(name)
        if (other := ours(each.module)) is not None
        and other != name
        and (other in ALONE or level_of(other) <= level)
    ]
    assert wrong == []


def test_node_program_imports_nothing_of_the_rest() -> None:
    """It is copied to compute nodes alone."""
    wrong = [each for each in imports_of("node") if ours(each.module) not in {None, "node"}]
    assert wrong == []


def test_only_these_import_dagster() -> None:
    """It costs three seconds and 60 MB on a login node (docs/adr/0003-protobuf-private-pool.md)."""
    names = [*(name for row in ORDER for name in row), *ALONE]
    loading = {
        name
        for name in names
        for each in imports_of(name)
        if DAGSTER.match(each.module.partition(".")[0])
    }
    assert loading == LOAD_DAGSTER


def test_contributing_draws_the_same_order() -> None:
    """The rooms by their names; single modules at the bottom are not drawn."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    drawn = re.search(r"^    cli\n(?:    → .*\n)+", text, re.MULTILINE)
    assert drawn is not None
    rows = [line.strip(" →").split(", ") for line in drawn.group().splitlines()]
    rooms = [[name for name in row if is_package(PACKAGE / name)] for row in ORDER]
    others = LOAD_DAGSTER - {"demo"}
    expected = [[name for name in row if name not in others] for row in rooms]
    assert [sorted(row) for row in rows] == [
        sorted([*row, *(["errors"] if "config" in row else [])]) for row in expected if row
    ]


def is_package(path: Path) -> bool:
    return (path / "__init__.py").exists()


def level_of(name: str) -> int:
    """Return how far down a package or module is."""
    return next(level for level, row in enumerate(ORDER) if name in row)


def ours(module: str) -> str | None:
    """Return the package or module right below hpc_agent that is imported; None for others."""
    parts = module.split(".")
    if parts[0] != "hpc_agent" or len(parts) == 1:
        return None
    return None if parts[1] == "__version__" else parts[1]


def imports_of(name: str) -> Iterator[Import]:
    """Yield what a package or module imports, anywhere in it."""
    at = PACKAGE / name
    for path in sorted(at.rglob("*.py")) if at.is_dir() else [at.with_suffix(".py")]:
        package = path.relative_to(ROOT).with_suffix("").parts[:-1]
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            for module in modules_of(node, package):
                yield Import(module, where)


def modules_of(node: ast.AST, package: tuple[str, ...]) -> list[str]:
    """Return the modules that a statement imports; ``package`` is where it stands."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = package[: len(package) - node.level + 1] if node.level else ()
    module = ".".join([*base, *([node.module] if node.module else [])])
    # `from hpc_agent import x` may name a package.
    return [f"{module}.{alias.name}" for alias in node.names] if module == "hpc_agent" else [module]
