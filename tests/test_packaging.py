"""Recipes of other package managers: written from pyproject.toml, and read by their own tools."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from rattler_build import Stage0Recipe

ROOT = Path(__file__).parent.parent
PACKAGING = ROOT / "packaging"


def written_now() -> Mapping[Path, str]:
    """Return what the generator writes."""
    spec = importlib.util.spec_from_file_location("recipes", PACKAGING / "recipes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks for its module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found: Mapping[Path, str] = module.recipes()
    return found


@pytest.mark.parametrize("path", written_now(), ids=lambda path: str(path.relative_to(PACKAGING)))
def test_recipe_is_that_of_pyproject(path: Path) -> None:
    """`python packaging/recipes.py` writes it anew."""
    assert path.read_text() == written_now()[path]


@pytest.mark.parametrize("name", ["dagster-hpc", "dagster-hpc-agent"])
def test_recipe_of_conda_is_rendered(name: str) -> None:
    """By rattler-build, for one noarch package of a directory with its licence."""
    path = PACKAGING / "conda" / name / "recipe.yaml"
    (variant,) = Stage0Recipe.from_yaml(path.read_text()).render()
    package = variant.recipe.package
    assert (str(package.name), str(package.version)) == (name, "0.1.0")
    (source,) = re.findall(r"path: (.+)", path.read_text())
    assert (path.parent / source / "pyproject.toml").exists()
    assert (path.parent / source / "LICENSE").exists()


@pytest.mark.parametrize(
    ("name", "class_name", "requirement"),
    [
        ("dagster-hpc", "PyDagsterHpc", "py-dagster@1.11:1"),
        ("dagster-hpc-agent", "PyDagsterHpcAgent", "py-rich@13:15"),
    ],
)
def test_recipe_of_spack_is_a_package(name: str, class_name: str, requirement: str) -> None:
    """Spack itself is on no index: its syntax, its class, and a range for each requirement."""
    tree = ast.parse((PACKAGING / "spack" / f"py-{name}" / "package.py").read_text())
    (package,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert package.name == class_name
    calls = [ast.unparse(node) for node in package.body if isinstance(node, ast.Expr)]
    assert any(f"'{requirement}'" in call for call in calls)
    assert all("@" in call for call in calls if call.startswith("depends_on"))


def test_apptainer_copies_what_is_there() -> None:
    """Files of the checkout, and the wheel that `make dist` makes."""
    text = (PACKAGING / "apptainer" / "hpc-agent.def").read_text()
    (copied,) = [part for part in text.split("\n\n") if part.startswith("%files")]
    sources = [line.split()[0] for line in copied.splitlines()[1:]]
    assert [name for name in sources if not name.startswith("dist/")] == ["requirements.lock"]
    assert (ROOT / "requirements.lock").exists()
