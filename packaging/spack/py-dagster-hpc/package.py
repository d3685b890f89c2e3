# Written by packaging/recipes.py from pyproject.toml.
from spack.package import *


class PyDagsterHpc(PythonPackage):
    """Steps and commands of Dagster runs as Slurm jobs, without sbatch in user code."""

    pypi = "dagster-hpc/dagster_hpc-0.1.0.tar.gz"

    license("Apache-2.0")

    version("0.1.0")

    depends_on("python@3.10:", type=("build", "run"))
    depends_on("py-hatchling@1.26:1", type="build")
    depends_on("py-dagster@1.11:1", type=("build", "run"))
