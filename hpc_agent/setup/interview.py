"""What is asked when an agent is set up: only what cannot be found, each with a default if any."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from hpc_agent.config import ControlPlane
from hpc_agent.config.section import Place
from hpc_agent.errors import UsageError
from hpc_agent.inspection.configuration import why_not
from hpc_agent.setup.surroundings import Surroundings

DAGSTER_PLUS = ".dagster.cloud"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One thing to know: the option that answers it, and the default, None where there is none.

    ``fault`` says what is wrong with an answer, None when nothing is.
    """

    option: str
    text: str
    default: str | None = None
    choices: Sequence[str] = ()
    fault: Callable[[str], str | None] = lambda _: None


class Asker(Protocol):
    """Whoever answers: a person at a terminal, or nobody."""

    def ask(self, question: Question) -> str:
        """Return a good answer. Raises UsageError when nobody is there to give one."""


class Person(Asker, Protocol):
    """Somebody at a terminal."""

    def secret(self, text: str) -> str:
        """Return what is typed, which is not shown."""

    def agrees(self, text: str) -> bool:
        """Whether the answer is yes."""


class Nobody:
    """Takes every default."""

    def ask(self, question: Question) -> str:
        """Return the default. Raises UsageError when there is none, or when it is no good."""
        if question.default is None:
            raise UsageError(f"--{question.option} is needed with --non-interactive")
        return question.default


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """All that agent.yaml is written from; what is empty is left out of it."""

    url: str
    deployment: str
    ca_bundle: str
    work_dir: str
    home: str
    partition: str = ""
    account: str = ""
    qos: str = ""
    python: str = ""
    is_local: bool = False


def interview(
    found: Surroundings, given: Mapping[str, str | None], asker: Asker, *, is_local: bool
) -> Answers:
    """Return the answers: those that are ``given`` by option, else the asker's.

    Raises UsageError for a given one that is no good, and for one that nobody gives.
    """
    answers: dict[str, str] = {}
    for question in _questions(found, is_local=is_local):
        if question.option == "ca-bundle" and _is_dagster_plus(answers["url"]):
            answers[question.option] = given.get("ca-bundle") or ""
            continue
        answers[question.option] = _answer(question, given.get(question.option), asker)
    named = {option.replace("-", "_"): answer for option, answer in answers.items()}
    return Answers(**named, is_local=is_local)


def _answer(question: Question, given: str | None, asker: Asker) -> str:
    if given is None:
        return asker.ask(question)
    if (fault := question.fault(given)) is not None:
        raise UsageError(f"--{question.option}: {fault}")
    return given


def _questions(found: Surroundings, *, is_local: bool) -> list[Question]:
    slurm = found.slurm
    work = [str(each.path) for each in found.work]
    shared = [str(each.path) for each in found.work if each.is_shared or is_local]
    pythons = [str(each.path) for each in found.pythons]
    fitting = [str(each.path) for each in found.pythons if each.pair.fits]
    questions = [
        Question(
            option="url",
            text="Address of the control plane (Dagster+: "
            f"https://ORGANIZATION.agent{DAGSTER_PLUS})",
            fault=_fault_of_url,
        ),
        Question(option="deployment", text="Deployment that it serves", default="prod"),
        Question(
            option="ca-bundle",
            text="File with its CA certificate (empty: it is known to the system)",
            default="",
            fault=lambda path: _fault_of_path("control_plane.ca_bundle", path, Place.CERTIFICATES),
        ),
        Question(
            option="work-dir",
            text="Directory for jobs, which compute nodes see under the same path",
            default=next(iter(shared), None),
            choices=work,
            fault=lambda path: _fault_of_path("work_dir", path, Place.MADE),
        ),
        Question(
            option="home",
            text="Directory for the agent's state, on a disk of this machine",
            default=str(found.home.path),
            fault=lambda path: _fault_of_path("home", path, Place.MADE),
        ),
        Question(
            option="python",
            text="Python with dagster and dagster-cloud (empty: code locations bring their own)",
            default=next(iter(fitting), ""),
            choices=pythons,
            fault=lambda path: _fault_of_path("environment.python", path, Place.FILE),
        ),
    ]
    if is_local or slurm.error is not None:
        return questions
    names = [each.name for each in slurm.partitions]
    return [
        *questions,
        Question(
            option="partition",
            text="Partition (empty: Slurm's default)",
            default="" if slurm.default_partition else next(iter(names), ""),
            choices=names,
            fault=lambda name: _fault_of_name("partition", name, names),
        ),
        *_of_accounting(slurm.accounts, slurm.qos),
    ]


def _of_accounting(accounts: Sequence[str], qos: Sequence[str]) -> list[Question]:
    """Return what is asked where there is a choice."""
    questions = []
    for option, names in (("account", accounts), ("qos", qos)):
        if len(names) > 1:
            questions.append(
                Question(
                    option=option,
                    text=f"{'QOS' if option == 'qos' else 'Account'} (empty: Slurm's default)",
                    default="",
                    choices=names,
                    fault=lambda name, option=option, names=names: _fault_of_name(  # type: ignore[misc]
                        option, name, names
                    ),
                )
            )
    return questions


def _is_dagster_plus(url: str) -> bool:
    return url.rstrip("/").endswith(DAGSTER_PLUS)


def _fault_of_url(url: str) -> str | None:
    try:
        ControlPlane(url=url)
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return None


def _fault_of_path(key: str, path: str, place: Place) -> str | None:
    if not path:
        return None if key in {"control_plane.ca_bundle", "environment.python"} else "is needed"
    whole = Path(path).expanduser()
    if not whole.is_absolute():
        return "must be an absolute path"
    return why_not(whole, place)


def _fault_of_name(option: str, name: str, names: Sequence[str]) -> str | None:
    if not name or name in names:
        return None
    return f"there is no {option} {name}; there are: {', '.join(names)}"
