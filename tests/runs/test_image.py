"""The tag dagster-hpc/image: what it changes in a run's job, and when it is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hpc_agent.config import AgentConfig, parse_config
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.errors import ConfigError
from hpc_agent.jobs.layers import check_layers
from hpc_agent.jobs.preparation import JobPlan
from hpc_agent.runs.image import IMAGE_TAG
from hpc_agent.runs.worker_plan import plan_run

RUN = RunToLaunch(
    run_id="r-1",
    job_name="j",
    location="here",
    tags={},
    code_origin={"repository_origin": {"executable_path": "/code/bin/python"}},
)
OUTSIDE = {"image": "/shared/own.sif"}
BUNDLE = {"runtime": "slurm", "image": "/bundles/own"}


def config(container: dict[str, Any] | None, **policy: Any) -> AgentConfig:
    content = {
        "control_plane": {"url": "https://x", "deployments": ["prod", "dev"]},
        "work_dir": "/work",
        "environment": {"container": container},
        "policy": policy,
    }
    return parse_config(content, source="test")


def planned(settings: AgentConfig, image: str | None, *, deployment: str = "prod") -> JobPlan:
    tags = {} if image is None else {IMAGE_TAG: image}
    return plan_run(settings, replace(RUN, tags=tags), deployment=deployment)


@pytest.mark.parametrize(
    "image", ["/shared/other 2.sif", "docker://registry.example:5000/etl:7", "oras://r/a@sha256:0"]
)
def test_image_of_the_tag_takes_the_place_of_the_locations(image: str) -> None:
    """For starting and for resuming; one run has no effect on the next."""
    settings = config(OUTSIDE)
    spec = planned(settings, image).spec
    for argv in (spec.argv, spec.resume_argv):
        assert argv[argv.index("/code/bin/python") - 1] == image
        assert "/shared/own.sif" not in argv
    assert "/shared/own.sif" in planned(settings, None).spec.argv


def test_bundle_of_the_tag_is_what_sbatch_gets() -> None:
    """And the job's options say where it comes from."""
    plan = planned(config(BUNDLE), "/bundles/other one")
    (setting,) = [each for each in plan.settings if each.option == "container"]
    assert setting.directive == "--container=/bundles/other one"
    assert setting.source == "tag dagster-hpc/image"


def test_location_whose_image_is_not_known_may_get_it_by_the_tag() -> None:
    """A container without an image is an error for other runs alone."""
    settings = config({"runtime": "apptainer"})
    assert "/shared/a.sif" in planned(settings, "/shared/a.sif").spec.argv
    with pytest.raises(ConfigError, match="which image"):
        planned(settings, None)


def test_without_a_container_the_tag_is_refused() -> None:
    """It would be ignored otherwise, and the run be in the wrong environment."""
    with pytest.raises(ConfigError, match="location here are in no container; set `environment"):
        planned(config(None), "/shared/a.sif")


@pytest.mark.parametrize(
    "image",
    [
        "",
        " ",
        "relative.sif",
        "--bind=/",
        "-B /",
        " /a.sif",
        "/a.sif ",
        "/",
        "docker://",
        "/shared/../home/x.sif",
        "/shared/..",
        "/a\n#SBATCH --uid=0",
        "/a\r",
        "/a\x00b",
        "/a\x1b[31m",
        "/a\u2028b",
        "$(id)",
        "; id",
        "docker://a\tb",
        "/" + "a" * 2000,
    ],
)
@pytest.mark.parametrize("container", [OUTSIDE, BUNDLE])
def test_hostile_value_is_refused(container: dict[str, Any], image: str) -> None:
    """Nothing of it is planned, and the message names the tag."""
    with pytest.raises(ConfigError, match="tag dagster-hpc/image: "):
        planned(config(container), image)


@pytest.mark.parametrize("image", ["/a;id", "/$(id)", "/`id`", "/a'b\"c", "/a #SBATCH --uid=0"])
def test_what_a_shell_would_read_stays_one_word(image: str) -> None:
    """There is no shell between."""
    assert image in planned(config(OUTSIDE), image).spec.argv


def test_bundle_must_be_a_path() -> None:
    """Slurm pulls nothing."""
    with pytest.raises(ConfigError, match="must be the path of an OCI bundle"):
        planned(config(BUNDLE), "docker://registry.example/etl:7")


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"forbid": ["image"]}, r"may not set image \(policy.forbid\)"),
        ({"allow": ["time"]}, r"may not set image \(policy.allow\); allowed are: time"),
        ({"images": []}, r"not open to it \(policy.images\); allowed are: none"),
        ({"images": ["/other/*"]}, r"\(policy.images\); allowed are: /other/\*"),
        ({"images": ["/SHARED/*"]}, r"policy.images"),
        ({"deployments": {"prod": {"forbid": ["image"]}}}, r"policy.forbid"),
    ],
)
def test_policy_forbids_it(policy: dict[str, Any], message: str) -> None:
    """As it does options; the location's own image is the administrator's."""
    settings = config(OUTSIDE, **policy)
    check_layers(settings)
    with pytest.raises(ConfigError, match=f"the site's policy forbids this job: .*{message}"):
        planned(settings, "/shared/a.sif")
    assert "/shared/own.sif" in planned(settings, None).spec.argv


def test_policy_allows_it() -> None:
    """By the name of the tag, and by patterns; elsewhere other rules may hold."""
    rules = {"allow": ["image"], "images": ["/shared/*", "docker://registry.example/*"]}
    settings = config(OUTSIDE, **rules, deployments={"dev": {"forbid": ["image"]}})
    for image in ("/shared/a/b.sif", "docker://registry.example/etl:7"):
        assert image in planned(settings, image).spec.argv
    with pytest.raises(ConfigError, match="may not set image"):
        planned(settings, "/shared/a/b.sif", deployment="dev")


def test_image_among_the_options_is_told_where_it_belongs() -> None:
    """It is none of sbatch's."""
    run = replace(RUN, tags={"dagster-hpc/config": '{"image": "/shared/a.sif"}'})
    with pytest.raises(ConfigError, match="a tag of its own, dagster-hpc/image"):
        plan_run(config(OUTSIDE), run, deployment="prod")
