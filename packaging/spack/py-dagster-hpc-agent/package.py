# Written by packaging/recipes.py from pyproject.toml.
from spack.package import *


class PyDagsterHpcAgent(PythonPackage):
    """The Dagster hybrid agent for HPC: code servers and runs as Slurm jobs, control plane outside."""

    pypi = "dagster-hpc-agent/dagster_hpc_agent-0.1.0.tar.gz"

    license("Apache-2.0")

    version("0.1.0")

    depends_on("python@3.11:", type=("build", "run"))
    depends_on("py-hatchling@1.26:1", type="build")
    depends_on("py-cryptography@43:", type=("build", "run"))
    depends_on("py-graphql-core@3.2:3.2", type=("build", "run"))
    depends_on("py-grpcio@1.66:1", type=("build", "run"))
    depends_on("py-httpx@0.27:0", type=("build", "run"))
    depends_on("py-jinja2@3.1:3", type=("build", "run"))
    depends_on("py-prometheus-client@0.22:0", type=("build", "run"))
    depends_on("py-protobuf@5:7", type=("build", "run"))
    depends_on("py-pydantic@2.9:2", type=("build", "run"))
    depends_on("py-pyyaml@6:6", type=("build", "run"))
    depends_on("py-rich@13:15", type=("build", "run"))
    depends_on("py-sqlite-utils@4:4", type=("build", "run"))
    depends_on("py-starlette@0.45:1", type=("build", "run"))
    depends_on("py-typer@0.15:0", type=("build", "run"))
    depends_on("py-uvicorn@0.35:0", type=("build", "run"))
