"""The command that starts user code: the Python of an environment, in a container where one is set.

Sources: apptainer-exec(1); sbatch(1), ``--container``.
"""

from __future__ import annotations

from hpc_agent.config.environment import Container, Environment
from hpc_agent.jobs.directory import NodePath, Word
from hpc_agent.jobs.options import Setting

IN_FILE = "agent.yaml environment.container"
"""Where the bundle of a job is set, unless a run's tag does."""

_IN_IMAGE = "python3"
_GPU_FLAGS = {"nvidia": "--nv", "amd": "--rocm"}


def python_of(environment: Environment, reported: str | None) -> str | None:
    """Return the Python; ``reported`` is the code location's own. None when nothing names one."""
    default = _IN_IMAGE if environment.container is not None else None
    return environment.interpreter or reported or default


def dagster_api(
    environment: Environment, python: str, *, image: str | None, working_directory: str | None
) -> list[Word]:
    """Return the words before a command of ``dagster api``.

    ``image`` is the one that the code location was deployed with. Variables reach the container by
    themselves: apptainer hands its environment on, and so none is on a command line.
    """
    command: list[Word] = [python, "-m", "dagster", "api"]
    return [
        *in_container(environment, image=image, working_directory=working_directory),
        *command,
    ]


def in_container(
    environment: Environment, *, image: str | None, working_directory: str | None
) -> list[Word]:
    """Return the words before any command that run it in the container, none where there is none.

    An OCI bundle holds the whole job script already.
    """
    container = environment.container
    if container is None or container.runtime == "slurm":
        return []
    return _exec(container, image, working_directory)


def has_image(container: Container | None, image: str | None) -> bool:
    """Whether it is known which image a container is made of; without container none is needed."""
    return container is None or bool(container.image or image)


def is_in_bundle(environment: Environment) -> bool:
    """Whether Slurm starts the whole job script in an OCI bundle."""
    return environment.container is not None and environment.container.runtime == "slurm"


def container_settings(environment: Environment, *, source: str = IN_FILE) -> tuple[Setting, ...]:
    """Return the option that puts the whole job into an OCI bundle."""
    container = environment.container
    if container is None or container.runtime != "slurm" or container.image is None:
        return ()
    return (Setting("container", container.image, source),)


def _exec(container: Container, image: str | None, working_directory: str | None) -> list[Word]:
    words: list[Word] = [container.runtime, "exec"]
    if container.gpu is not None:
        words.append(_GPU_FLAGS[container.gpu])
    binds: list[Word] = [NodePath.TMP, *container.binds]
    if working_directory is not None:
        binds.insert(1, working_directory)
        words += ["--pwd", working_directory]
    for bind in binds:
        words += ["--bind", bind]
    return [*words, *container.options, container.image or f"docker://{image}"]
