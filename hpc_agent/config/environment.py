"""What surrounds the user's Python in a job: interpreter, modules, variables, container."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from hpc_agent.config.section import Section

AbsolutePath = Annotated[str, Field(pattern=r"^/[^\n]*$")]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTERPRETERS = ("python", "venv", "conda", "uv")


class Conda(Section):
    """A conda environment: its ``prefix``, or the ``root`` of an installation and its ``name``.

    Nothing of conda itself is run, so environments of mamba, micromamba and pixi are the same.
    """

    prefix: AbsolutePath | None = None
    root: AbsolutePath | None = None
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]+$")] | None = None

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if (self.prefix is None) == (self.root is None and self.name is None):
            raise ValueError("give either prefix, or root and name")
        if self.prefix is None and (self.root is None or self.name is None):
            raise ValueError("root and name belong together")
        return self

    @property
    def path(self) -> str:
        """Return the environment's directory."""
        return self.prefix or f"{self.root}/envs/{self.name}"


class Container(Section):
    """A container for user code; ``image`` is the location's own where none is named.

    apptainer and singularity: the node program stays outside, only user code is inside.
    slurm: the whole job script is inside (sbatch ``--container``), ``image`` is an OCI bundle.
    """

    image: Annotated[str, Field(pattern=r"^[^\s-][^\n]*$")] | None = None
    runtime: Literal["apptainer", "singularity", "slurm"] = "apptainer"
    binds: list[Annotated[str, Field(pattern=r"^/[^\n]*$")]] = []
    gpu: Literal["nvidia", "amd"] | None = None
    options: list[str] = []

    @model_validator(mode="after")
    def _slurm_takes_a_bundle(self) -> Self:
        if self.runtime == "slurm" and (self.binds or self.gpu or self.options):
            raise ValueError("with runtime slurm, binds and GPUs are in the bundle's config.json")
        if self.runtime == "slurm" and not (self.image or "").startswith("/"):
            raise ValueError("with runtime slurm, image must be the path of an OCI bundle")
        return self


class Environment(Section):
    """What a job does before it starts the user's Python, and after it has ended."""

    python: str | None = None
    venv: AbsolutePath | None = None
    conda: Conda | None = None
    uv: AbsolutePath | None = None
    packed: AbsolutePath | None = None
    unpack_directory: AbsolutePath = "/tmp"  # noqa: S108  (nothing is made in it that is not ours)
    modules: list[str] = []
    purge_modules: bool = False
    variables: dict[str, str] = {}
    omp_num_threads: bool = True
    env_file: AbsolutePath | None = None
    setup: list[str] = []
    teardown: list[str] = []
    working_directory: AbsolutePath | None = None
    umask: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] | None = None
    container: Container | None = None

    @field_validator("variables")
    @classmethod
    def _names_are_names(cls, variables: dict[str, str]) -> dict[str, str]:
        for name in variables:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of an environment variable")
        return variables

    @model_validator(mode="after")
    def _has_one_interpreter(self) -> Self:
        chosen = [name for name in _INTERPRETERS if getattr(self, name) is not None]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} exclude each other; set one of them")
        return self

    @model_validator(mode="after")
    def _packed_is_an_environment(self) -> Self:
        if self.packed is not None and self.prefix is None:
            raise ValueError(
                "packed is the archive of an environment: name it as venv, conda or uv, which "
                "serves where it cannot be unpacked"
            )
        if self.packed is not None and self.container is not None:
            raise ValueError(
                "packed and container exclude each other: an image is one file already"
            )
        return self

    @property
    def prefix(self) -> str | None:
        """The directory of the Python environment; a uv project has its own in ``.venv``."""
        if self.conda is not None:
            return self.conda.path
        return f"{self.uv}/.venv" if self.uv is not None else self.venv

    @property
    def interpreter(self) -> str | None:
        """The Python that starts user code, when it is set here.

        That of a packed environment is where the job's script has unpacked it: first on PATH.
        """
        return "python" if self.packed is not None else self.shared_interpreter

    @property
    def shared_interpreter(self) -> str | None:
        """The Python that all nodes see, also where an archive is unpacked."""
        return f"{self.prefix}/bin/python" if self.prefix is not None else self.python

    @property
    def interpreter_key(self) -> str | None:
        """The key that names the interpreter."""
        return next((name for name in _INTERPRETERS if getattr(self, name) is not None), None)

    def over(self, general: Environment) -> Environment:
        """Return this environment over a more general one.

        Variables are merged; an interpreter of any kind replaces one of any other, and its archive,
        which a container does too; of the rest, what is set here wins as a whole.
        """
        own = {name: getattr(self, name) for name in self.model_fields_set}
        inherited = {name: getattr(general, name) for name in type(self).model_fields}
        if self.interpreter is not None:
            inherited |= dict.fromkeys(_INTERPRETERS)
        if self.interpreter is not None or self.container is not None:
            inherited["packed"] = None
        variables = {**general.variables, **self.variables}
        return Environment.model_construct(**(inherited | own | {"variables": variables}))
