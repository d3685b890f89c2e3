"""The image of one run's container: its tag ``dagster-hpc/image``, where the site allows it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping

from hpc_agent.config import AgentConfig, Environment
from hpc_agent.errors import ConfigError
from hpc_agent.jobs import policy
from hpc_agent.jobs.options import IMAGE_OPTION, TAG_PREFIX

IMAGE_TAG = TAG_PREFIX + IMAGE_OPTION
_IMAGE = re.compile(r"(/|[a-z][a-z0-9.+-]*://)\S(.*\S)?")
_LONGEST = 1024


def with_image(
    environment: Environment,
    tags: Mapping[str, str],
    config: AgentConfig,
    *,
    deployment: str,
    location: str | None,
) -> Environment:
    """Return the environment with the image that a run's tag asks for; as it is without the tag.

    Raises ConfigError for what is no image, for one that the policy does not allow, and where the
    code location uses no container.
    """
    image = tags.get(IMAGE_TAG)
    if image is None:
        return environment
    if environment.container is None:
        raise ConfigError(
            f"tag {IMAGE_TAG}: runs of code location {location} are in no container; set "
            "`environment.container` in agent.yaml, or launch the run without the tag"
        )
    _check(image, is_bundle=environment.container.runtime == "slurm")
    rules = config.policy.rules_of(deployment, is_branch=config.is_branch(deployment))
    policy.refuse_unless_theirs(rules, IMAGE_OPTION, source=f"tag {IMAGE_TAG}")
    allowed = rules.images
    if allowed is not None and not any(fnmatch.fnmatchcase(image, each) for each in allowed):
        raise ConfigError(
            f"the site's policy forbids this job: image {image} (tag {IMAGE_TAG}) is not open to "
            f"it (policy.images); allowed are: {', '.join(allowed) or 'none'}"
        )
    container = environment.container.model_copy(update={"image": image})
    return environment.model_copy(update={"container": container})


def _check(image: str, *, is_bundle: bool) -> None:
    """No ``..``: a pattern of the policy is about where an image is."""
    if is_bundle and not image.startswith("/"):
        raise ConfigError(f"tag {IMAGE_TAG}: {image!r} must be the path of an OCI bundle")
    is_one = _IMAGE.fullmatch(image) is not None and image.isprintable()
    if not is_one or ".." in image.split("/") or len(image) > _LONGEST:
        raise ConfigError(
            f"tag {IMAGE_TAG}: {image[:_LONGEST]!r} is no image; it must be an absolute path or a "
            "URI, such as /shared/images/etl.sif or docker://registry.example/etl:7"
        )
