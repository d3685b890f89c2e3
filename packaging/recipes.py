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


def recipes() -> Mapping[Path, str]:
    """Return the files and their content."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (version,) = re.findall(r'__version__ = "(.+)"', (ROOT / "hpc_agent/__init__.py").read_text())
    values = {"project": project["project"], "version": version}
    here = ROOT / "packaging"
    return {
        here / "conda" / "recipe.yaml": _conda(**values),
        here / "spack" / "package.py": _spack(**values),
        here / "apptainer" / "hpc-agent.def": _apptainer(**values),
    }


def _parted(requirements: Iterable[str]) -> list[tuple[str, str]]:
    matches = [_REQUIREMENT.fullmatch(each) for each in requirements]
    return [(match["name"].lower(), match["range"]) for match in matches if match]


def _conda(project: dict[str, Any], version: str) -> str:
    run = [
        f"{_CONDA_NAMES.get(name, name)} {limits}".strip()
        for name, limits in _parted(project["dependencies"])
    ]
    (_, hatchling) = next(each for each in _parted(_build_requirements()) if each[0] == "hatchling")
    lines = "\n".join(f"    - {each}" for each in run)
    return f"""\
# Written by packaging/recipes.py from pyproject.toml. Build: rattler-build build --recipe packaging/conda
schema_version: 1

context:
  version: "{version}"

package:
  name: {project["name"]}
  version: ${{{{ version }}}}

source:
  path: ../..

build:
  number: 0
  noarch: python
  script: python -m pip install . --no-deps --no-build-isolation -vv
  python:
    entry_points:
      - hpc-agent = {project["scripts"]["hpc-agent"]}

requirements:
  host:
    - python >=3.11
    - pip
    - hatchling {hatchling}
    - setuptools >=75
  run:
    - python >=3.11
{lines}

tests:
  - python:
      imports: [hpc_agent.cli]
      pip_check: true
  - script:
      - hpc-agent --version
      - hpc-agent config example

about:
  summary: {json.dumps(project["description"])}
  license: {project["license"]}
  license_file: LICENSE
"""


def _build_requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return list(project["build-system"]["requires"])


def _spack(project: dict[str, Any], version: str) -> str:
    depends = "\n".join(
        f'    depends_on("{_spack_spec(name, limits)}", type=("build", "run"))'
        for name, limits in _parted(project["dependencies"])
    )
    return f'''\
# Written by packaging/recipes.py from pyproject.toml.
from spack.package import *


class PyDagsterHpcAgent(PythonPackage):
    """{project["description"]}"""

    pypi = "dagster-hpc-agent/dagster_hpc_agent-{version}.tar.gz"

    license("{project["license"]}")

    version("{version}")

    depends_on("python@3.11:", type=("build", "run"))
    depends_on("py-hatchling@1.26:1", type="build")
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


def _apptainer(project: dict[str, Any], version: str) -> str:
    return f"""\
# Written by packaging/recipes.py. `make dist`, then:
#   apptainer build hpc-agent.sif packaging/apptainer/hpc-agent.def
# The agent calls the Slurm of the host: bind its programs, its configuration and munge's socket.
#   apptainer run -B /usr/bin/sbatch,/usr/bin/squeue,/usr/bin/scancel,/usr/bin/scontrol,/usr/bin/sacct \\
#     -B /usr/lib64/slurm,/etc/slurm,/run/munge hpc-agent.sif start --config agent.yaml
Bootstrap: docker
From: python:3.12-slim

%files
    dist/dagster_hpc_agent-{version}-py3-none-any.whl /opt/
    requirements.lock /opt/

%post
    python3 -m venv /opt/hpc-agent
    /opt/hpc-agent/bin/pip install --no-cache-dir --require-hashes -r /opt/requirements.lock
    /opt/hpc-agent/bin/pip install --no-cache-dir --no-deps /opt/dagster_hpc_agent-{version}-py3-none-any.whl
    rm /opt/*.whl

%environment
    export PATH=/opt/hpc-agent/bin:$PATH

%runscript
    exec hpc-agent "$@"

%test
    hpc-agent --version

%labels
    org.opencontainers.image.title {project["name"]}
    org.opencontainers.image.licenses {project["license"]}
"""


if __name__ == "__main__":
    for path, content in recipes().items():
        path.write_text(content)
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
