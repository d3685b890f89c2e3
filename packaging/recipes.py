"""Write the recipes of other package managers from pyproject.toml: ``python packaging/recipes.py``.

conda-forge's recipe (format 1), Spack's, and an Apptainer definition. None of these packages is
published yet: the recipes build from a checkout (`make dist`).
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?(?P<range>.*)")
# Where conda-forge has a package under another name than PyPI.
_CONDA_NAMES = {
    "prometheus-client": "prometheus_client",
    "psycopg2-binary": "psycopg2",
    "protobuf": "protobuf",
}
_SPACK_NAMES = {"psycopg2-binary": "py-psycopg2", "pyyaml": "py-pyyaml"}


@dataclass(frozen=True)
class Distribution:
    """One of the two that this repository builds."""

    directory: str
    package: str
    """The directory of its import package; both are relative to the checkout."""

    build_tools: tuple[str, ...] = ()
    """What builds it besides hatchling, as conda names it."""
    conda_tests: tuple[str, ...] = ()
    """Commands that must work in an environment that has nothing else."""
    module: str = ""
    """What a test imports; by default the package."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Return pyproject.toml."""
        return tomllib.loads((ROOT / self.directory / "pyproject.toml").read_text())

    @property
    def project(self) -> Mapping[str, Any]:
        """Return its table ``project``."""
        table: Mapping[str, Any] = self.metadata["project"]
        return table

    @property
    def name(self) -> str:
        return str(self.project["name"])

    @property
    def python(self) -> str:
        """Return the oldest Python that it runs on."""
        return str(self.project["requires-python"]).removeprefix(">=")

    @property
    def version(self) -> str:
        init = (ROOT / self.package / "__init__.py").read_text()
        (version,) = re.findall(r'__version__ = "(.+)"', init)
        return version

    @property
    def hatchling(self) -> str:
        """Return the range of hatchling that builds it."""
        found = dict(_parted(self.metadata["build-system"]["requires"]))
        return found["hatchling"]


AGENT = Distribution(
    directory=".",
    package="hpc_agent",
    build_tools=("setuptools >=75",),
    conda_tests=("hpc-agent --version", "hpc-agent config example"),
    module="hpc_agent.cli",
)
LIBRARY = Distribution(directory="dagster_hpc", package="dagster_hpc/src/dagster_hpc")


def recipes() -> Mapping[Path, str]:
    """Return the files and their content."""
    here = ROOT / "packaging"
    return {
        here / "conda" / AGENT.name / "recipe.yaml": _conda(AGENT),
        here / "conda" / LIBRARY.name / "recipe.yaml": _conda(LIBRARY),
        here / "spack" / f"py-{AGENT.name}" / "package.py": _spack(AGENT),
        here / "spack" / f"py-{LIBRARY.name}" / "package.py": _spack(LIBRARY),
        here / "apptainer" / "hpc-agent.def": _apptainer(AGENT),
    }


def _parted(requirements: Iterable[str]) -> list[tuple[str, str]]:
    matches = [_REQUIREMENT.fullmatch(each) for each in requirements]
    return [(match["name"].lower(), match["range"]) for match in matches if match]


def _conda(of: Distribution) -> str:
    run = [
        f"{_CONDA_NAMES.get(name, name)} {limits}".strip()
        for name, limits in _parted(of.project["dependencies"])
    ]
    host = ["pip", f"hatchling {of.hatchling}", *of.build_tools]
    commands = [f"{name} = {target}" for name, target in of.project.get("scripts", {}).items()]
    entry_points = f"  python:\n    entry_points:\n{_listed(commands, 6)}" if commands else ""
    scripts = f"  - script:\n{_listed(of.conda_tests, 6)}" if of.conda_tests else ""
    # Relative to the recipe, three directories below the checkout.
    source = Path("../../..") / of.directory
    return f"""\
# Written by packaging/recipes.py from pyproject.toml.
# Build: rattler-build build --recipe packaging/conda/{of.name}
schema_version: 1

context:
  version: "{of.version}"

package:
  name: {of.name}
  version: ${{{{ version }}}}

source:
  path: {source}

build:
  number: 0
  noarch: python
  script: python -m pip install . --no-deps --no-build-isolation -vv
{entry_points}
requirements:
  host:
    - python >={of.python}
{_listed(host, 4)}  run:
    - python >={of.python}
{_listed(run, 4)}
tests:
  - python:
      imports: [{of.module or Path(of.package).name}]
      pip_check: true
{scripts}
about:
  summary: {json.dumps(of.project["description"])}
  license: {of.project["license"]}
  license_file: LICENSE
"""


def _listed(items: Iterable[str], indent: int) -> str:
    return "".join(f"{' ' * indent}- {each}\n" for each in items)


def _spack(of: Distribution) -> str:
    depends = "\n".join(
        f'    depends_on("{_spack_spec(name, limits)}", type=("build", "run"))'
        for name, limits in _parted(of.project["dependencies"])
    )
    class_name = "".join(part.capitalize() for part in f"py-{of.name}".split("-"))
    return f'''\
# Written by packaging/recipes.py from pyproject.toml.
from spack.package import *


class {class_name}(PythonPackage):
    """{of.project["description"]}"""

    pypi = "{of.name}/{of.name.replace("-", "_")}-{of.version}.tar.gz"

    license("{of.project["license"]}")

    version("{of.version}")

    depends_on("python@{of.python}:", type=("build", "run"))
    depends_on("{_spack_spec("hatchling", of.hatchling)}", type="build")
{depends}
'''


def _spack_spec(name: str, limits: str) -> str:
    """Return ``py-rich@13:15`` for ``rich>=13,<16``: Spack's ranges include their end."""
    least = re.search(r">=([\d.]+)", limits)
    below = re.search(r"<([\d.]+)", limits)
    most = ""
    if below:
        *parents, last = below[1].split(".")
        most = ".".join([*parents, str(int(last) - 1)]) if last != "0" else below[1]
    versions = f"@{least[1] if least else ''}:{most}" if least or most else ""
    return f"{_SPACK_NAMES.get(name, f'py-{name}')}{versions}"


def _apptainer(of: Distribution) -> str:
    return f"""\
# Written by packaging/recipes.py. `make dist`, then:
#   apptainer build hpc-agent.sif packaging/apptainer/hpc-agent.def
# The agent calls the Slurm of the host: bind its programs, its configuration and munge's socket.
#   apptainer run -B /usr/bin/sbatch,/usr/bin/squeue,/usr/bin/scancel,/usr/bin/scontrol,/usr/bin/sacct \\
#     -B /usr/lib64/slurm,/etc/slurm,/run/munge hpc-agent.sif start --config agent.yaml
Bootstrap: docker
From: python:3.12-slim

%files
    dist/dagster_hpc_agent-{of.version}-py3-none-any.whl /opt/
    requirements.lock /opt/

%post
    python3 -m venv /opt/hpc-agent
    /opt/hpc-agent/bin/pip install --no-cache-dir --require-hashes -r /opt/requirements.lock
    /opt/hpc-agent/bin/pip install --no-cache-dir --no-deps /opt/dagster_hpc_agent-{of.version}-py3-none-any.whl
    rm /opt/*.whl

%environment
    export PATH=/opt/hpc-agent/bin:$PATH

%runscript
    exec hpc-agent "$@"

%test
    hpc-agent --version

%labels
    org.opencontainers.image.title {of.name}
    org.opencontainers.image.licenses {of.project["license"]}
"""


if __name__ == "__main__":
    for path, content in recipes().items():
        path.write_text(content)
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
