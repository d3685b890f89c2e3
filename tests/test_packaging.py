"""Recipes of other package managers: written from pyproject.toml, and read by their own tools."""

from __future__ import annotations

import ast
import importlib.util
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
    spec.loader.exec_module(module)
    found: Mapping[Path, str] = module.recipes()
    return found


@pytest.mark.parametrize("path", written_now(), ids=lambda path: str(path.relative_to(PACKAGING)))
def test_recipe_is_that_of_pyproject(path: Path) -> None:
    """`python packaging/recipes.py` writes it anew."""
    assert path.read_text() == written_now()[path]


def test_recipe_of_conda_is_rendered() -> None:
    """By rattler-build, for one noarch package."""
    recipe = Stage0Recipe.from_yaml((PACKAGING / "conda" / "recipe.yaml").read_text())
    (variant,) = recipe.render()
    package = variant.recipe.package
    assert (str(package.name), str(package.version)) == ("dagster-hpc-agent", "0.1.0")


def test_recipe_of_spack_is_a_package() -> None:
    """Spack itself is on no index: its syntax, its class, and a range for each requirement."""
    tree = ast.parse((PACKAGING / "spack" / "package.py").read_text())
    (package,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert package.name == "PyDagsterHpcAgent"
    calls = [ast.unparse(node) for node in package.body if isinstance(node, ast.Expr)]
    assert any("'py-rich@13:15'" in call for call in calls)
    assert all("@" in call for call in calls if call.startswith("depends_on"))


def test_apptainer_copies_what_is_there() -> None:
    """Files of the checkout, and the wheel that `make dist` makes."""
    text = (PACKAGING / "apptainer" / "hpc-agent.def").read_text()
    (copied,) = [part for part in text.split("\n\n") if part.startswith("%files")]
    sources = [line.split()[0] for line in copied.splitlines()[1:]]
    assert [name for name in sources if not name.startswith("dist/")] == ["requirements.lock"]
    assert (ROOT / "requirements.lock").exists()
