"""The example sites in slurm/sites: each loads, renders, and is a script that bash takes."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hpc_agent.code_servers.server_plan import plan_server
from hpc_agent.config import AgentConfig, load_config
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.errors import ConfigError
from hpc_agent.jobs.directory import NodePath
from hpc_agent.jobs.layers import check_layers
from hpc_agent.jobs.preparation import TEMPLATE_OF, JobPlan, script_values
from hpc_agent.jobs.rendering import Templates
from hpc_agent.runs.worker_plan import plan_run

SITES = sorted((Path(__file__).parents[2] / "slurm" / "sites").glob("*/agent.yaml"))
RUN = RunToLaunch(
    run_id="r-1",
    job_name="train",
    location="training",
    tags={"dagster-hpc/time": "30:00"},
    code_origin={"repository_origin": {"code_pointer": {"working_directory": "/projects/train"}}},
)


def load(name: str) -> AgentConfig:
    (path,) = (path for path in SITES if path.parent.name == name)
    return load_config(path, environ={})


def script_of(path: Path, plan: JobPlan) -> str:
    """Render with the site's own templates, from where they are here."""
    values = script_values(plan, directory=Path("/work/jobs/x"), node_python="python3")
    own = path.parent / "templates"
    templates = Templates(own if own.is_dir() else None)
    return templates.render(TEMPLATE_OF[plan.spec.kind], values)


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.parent.name)
def test_site_loads_and_renders(path: Path) -> None:
    """Runs and code servers, with the site's own templates."""
    config = load_config(path, environ={})
    check_layers(config)
    server = plan_server(
        config,
        key="srv-1",
        deployment="prod",
        location="training",
        deploy_data=json.dumps({"working_directory": "/projects/train"}),
    )
    for plan in (plan_run(config, RUN, deployment="prod"), server):
        script = script_of(path, plan)
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        assert "#SBATCH --time=" in script


def test_gpu_cluster_bounds_branch_deployments() -> None:
    """They have a partition of their own, and an hour."""
    config = load("gpu-cluster")
    plan = plan_run(config, RUN, deployment="pull-request-7")
    chosen = {setting.option: setting.value for setting in plan.settings}
    assert (chosen["partition"], chosen["nice"]) == ("debug", "1000")
    greedy = replace(RUN, tags={"dagster-hpc/time": "2:00:00"})
    with pytest.raises(ConfigError, match=re.escape("at most 60 is allowed (policy.max.time)")):
        plan_run(config, greedy, deployment="pull-request-7")


def test_apptainer_site_runs_user_code_in_its_image() -> None:
    """With a GPU where the location asks for one; the node program stays outside."""
    argv = plan_run(load("apptainer"), RUN, deployment="prod").spec.argv
    assert argv[: argv.index("api")] == [
        "apptainer", "exec", "--nv", "--pwd", "/projects/train", "--bind", NodePath.TMP,
        "--bind", "/projects/train", "--bind", "/gpfs/data", "/gpfs/dagster/images/training.sif",
        "python3", "-m", "dagster",
    ]  # fmt: skip
