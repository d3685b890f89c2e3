"""What a run says of the jobs that it asks for: checked, and rebuilt as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.json_text import loads_object

LONGEST_WAIT_SECONDS = 30.0
_MOST_JOBS = 1000
MOST_STEPS = 1000
# A word of a command and a variable are one string to the kernel (MAX_ARG_STRLEN, execve(2)).
LONGEST_WORD = 128 * 1024 - 200
_LONGEST_FAULT = 500


def _is_text(text: str) -> str:
    """No NUL, which ends a string of the kernel's, and nothing that UTF-8 cannot spell."""
    if "\0" in text:
        raise ValueError("holds a NUL character")
    if len(text.encode("utf-8", "surrogatepass")) > LONGEST_WORD:
        raise ValueError(f"is longer than {LONGEST_WORD} bytes, and the kernel takes no more")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is no UTF-8") from None
    return text


def _is_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return text


_Word = Annotated[str, AfterValidator(_is_text)]
_Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1000),
    AfterValidator(_is_text),
    AfterValidator(_is_one_line),
]
_Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]
_Tags = Annotated[dict[_Word, _Word], Field(max_length=200)]


class _Asked(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class JobName(_Asked):
    """Names a job within its run; ``attempt`` counts from 0 what Dagster repeats by itself."""

    name: _Name
    attempt: Annotated[int, Field(ge=0, le=100_000)] = 0

    def __str__(self) -> str:
        """As people read it."""
        return f"{self.name} (retry {self.attempt})" if self.attempt else self.name


class AskedStep(_Asked):
    """A step that a job carries, with its tags."""

    key: _Name
    tags: _Tags = {}


class AskedJob(JobName):
    """A job that a run asks for: steps of Dagster (``arguments``) or a command, and only one.

    ``arguments`` is the value of DAGSTER_COMPRESSED_EXECUTE_STEP_ARGS for ``dagster api
    execute_step`` (dagster/_cli/api.py). ``working_directory`` None is the code location's.
    """

    steps: Annotated[list[AskedStep], Field(min_length=1, max_length=MOST_STEPS)]
    arguments: Annotated[_Word, StringConstraints(pattern=r"^[A-Za-z0-9+/=]+$")] | None = None
    command: Annotated[list[_Word], Field(max_length=10_000)] = []
    environment: Annotated[dict[_Variable, _Word], Field(max_length=1000)] = {}
    working_directory: (
        Annotated[_Word, StringConstraints(pattern=r"^/", max_length=4000)] | None
    ) = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> Self:
        if (self.arguments is None) == (not self.command):
            raise ValueError("give arguments or a command, and not both")
        if self.command and not self.command[0]:
            raise ValueError("the command has no name")
        return self

    @property
    def tags(self) -> list[tuple[str, Mapping[str, str]]]:
        """The steps, each with its tags."""
        return [(step.key, step.tags) for step in self.steps]


class AskedJobs(_Asked):
    """Jobs that are asked for."""

    jobs: Annotated[list[AskedJob], Field(min_length=1, max_length=_MOST_JOBS)]


class NamedJobs(_Asked):
    """Jobs that something is to be done with."""

    jobs: Annotated[list[JobName], Field(max_length=_MOST_JOBS)]


class StepStatus(BaseModel):
    """How a job stands; docs/steps.md has the fields."""

    model_config = ConfigDict(frozen=True)

    name: str
    attempt: int
    phase: Literal["waiting", "queued", "running", "ended"]
    job_id: str | None = None
    state: str = ""
    reason: str = ""
    nodes: str = ""
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    directory: str = ""
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    restarts: int = 0


class StepChanges(BaseModel):
    """The jobs that have changed; ``cursor`` and ``events`` are for the next question."""

    model_config = ConfigDict(frozen=True)

    cursor: int
    events: int
    jobs: Sequence[StepStatus]


class Followed(BaseModel):
    """From where on a run follows its jobs, and how long it waits for a change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after: Annotated[int, Field(ge=0, lt=1 << 62)] = 0
    events: Annotated[int, Field(ge=0, lt=1 << 62)] = 0
    wait: Annotated[float, Field(ge=0, le=LONGEST_WAIT_SECONDS)] = 0.0


Model = TypeVar("Model", bound=BaseModel)


def asked(model: type[Model], body: bytes) -> Model:
    """Return what a body asks for. Raises InputError."""
    return _validated(model, loads_object(body))


def followed(parameters: Sequence[tuple[str, str]]) -> Followed:
    """Return what the query of a long poll asks for. Raises InputError."""
    return _validated(Followed, dict(parameters))


def _validated(model: type[Model], content: object) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        words = fault["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {words}"[:_LONGEST_FAULT]) from None
