"""Packages of other managers, built as far as a machine without these managers gets."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from rattler_build import Stage0Recipe

from tests.machines.conftest import CHECKOUTS
from tests.machines.machine import Machine
from tests.manual.pages import ROOT

pytestmark = [pytest.mark.machines, pytest.mark.timeout(1800)]

DEFINITION = ROOT / "packaging" / "apptainer" / "hpc-agent.def"
CHANNEL = "https://conda.anaconda.org/conda-forge/noarch/repodata_shards.msgpack.zst"


def test_apptainer_definition_makes_its_environment(machine: Machine) -> None:
    """Its files, %post and %test on a Debian, with the wheel that `make dist` has made there."""
    checkout = CHECKOUTS["root"]
    machine.run(f"cd {checkout} && make setup && make dist", seconds=900)
    copies = [f"cp {each} || exit" for each in section("files").splitlines()]
    machine.run("\n".join([f"cd {checkout}", *copies]))

    machine.run(f"set -e\n{section('post')}", seconds=900)

    said = machine.run(f"set -e\n{section('environment')}\n{section('test')}")
    assert re.fullmatch(r"hpc-agent [\d.]+\S*\n", said)


def test_conda_package_is_built(tmp_path: Path) -> None:
    """By rattler-build with conda-forge, where that can be reached."""
    try:
        httpx.head(CHANNEL, follow_redirects=True).raise_for_status()
    except httpx.HTTPError as error:
        pytest.skip(f"conda-forge cannot be reached: {error}")
    recipe = Stage0Recipe.from_file(ROOT / "packaging" / "conda" / "recipe.yaml")
    (variant,) = recipe.render()
    built = variant.run_build(output_dir=tmp_path, channels=["conda-forge"])
    assert [path.name for path in built.packages]


def section(name: str) -> str:
    """Return a section of the definition without its indentation."""
    (found,) = re.findall(rf"^%{name}\n(.*?)(?=^%|\Z)", DEFINITION.read_text(), re.M | re.S)
    return re.sub("^ +", "", found, flags=re.M).strip()
