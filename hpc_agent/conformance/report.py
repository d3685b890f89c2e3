"""Running every case against a control plane of its own, and the table that tells of it."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graphql import GraphQLError, GraphQLSchema, build_schema, parse, validate

from hpc_agent.conformance import request_types, storage
from hpc_agent.conformance.case import difference
from hpc_agent.conformance.command_cases import COMMAND_CASES, problem
from hpc_agent.conformance.documents import (
    COMMANDS_ELSEWHERE,
    FROM_WEBSERVER,
    agent_documents,
    command_documents,
)
from hpc_agent.conformance.history import record_history
from hpc_agent.conformance.plane import running_plane
from hpc_agent.conformance.request_cases import (
    REQUEST_CASES,
    RequestSetting,
    open_requests,
)
from hpc_agent.conformance.rest_cases import REST_CASES, open_rest
from hpc_agent.conformance.sides import open_sides
from hpc_agent.control_plane.graphql.executor import make_schema
from hpc_agent.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One kind of thing: how many there are, how many are right, how many have a reason not to."""

    name: str
    found: int
    right: int
    excused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conformance:
    """What was found; without failures, the gateway is what the installed client expects."""

    client: str
    sections: list[Section]
    failures: list[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def check() -> Conformance:
    """Run all cases; takes about two minutes and leaves nothing behind."""
    failures: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="hpc-conformance-") as directory,
        warnings.catch_warnings(),
        _quiet(),
        contextlib.redirect_stdout(sys.stderr),
    ):
        warnings.simplefilter("ignore")
        sections = list(_sections(Path(directory), failures))
    return Conformance(client=_client(), sections=sections, failures=failures)


def check_schema(file: Path) -> Conformance:
    """Validate the client's documents against an SDL, such as another release's gateway has.

    Raises ConfigError when the file holds none.
    """
    try:
        schema = build_schema(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, GraphQLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{file} is no GraphQL schema ({reason}): give it what "
            "`hpc-agent control-plane schema` prints"
        ) from error
    failures: list[str] = []
    return Conformance(client=_client(), sections=[_documents(schema, failures)], failures=failures)


def lines(found: Conformance) -> list[str]:
    """Return the table, and what failed."""
    head = f"{'':32}{'found':>7}{'equal':>7}{'reasoned':>10}"
    rows = [
        f"{each.name:32}{each.found:7}{each.right:7}{each.excused:10}" for each in found.sections
    ]
    verdict = "everything as expected" if not found.failures else "failures:"
    return [f"client: {found.client}", head, *rows, verdict, *found.failures]


def _client() -> str:
    from dagster_cloud.version import __version__

    return f"dagster-cloud {__version__}"


def _sections(directory: Path, failures: list[str]) -> Iterator[Section]:
    yield _documents(make_schema(), failures)
    with (
        running_plane(directory / "home") as plane,
        open_sides(plane, record_history(), directory / "sides") as sides,
    ):
        client: Any = sides.client.instance
        yield _run("storage calls", storage.CASES, lambda case: difference(case, sides), failures)
        yield _methods(failures)
        # After the storages: what these write is on one side only.
        with open_rest(plane, client) as setting:
            yield _run("REST and agent calls", REST_CASES, lambda case: case.check(setting),
                       failures)  # fmt: skip
        yield _executed(sides.sent, failures)
        yield _run("dagster-cloud commands", COMMAND_CASES,
                   lambda case: problem(case, plane, directory), failures)  # fmt: skip
    with open_requests(directory / "requests") as requested:
        yield _requests(requested, failures)


def _run(
    name: str, cases: list[Any], run: Callable[[Any], str | None], failures: list[str]
) -> Section:
    wrong = 0
    for case in cases:
        try:
            found = run(case)
        except Exception as error:  # noqa: BLE001 whatever it is, the table tells it
            found = f"{type(error).__name__}: {error}"
        if found is not None:
            wrong += 1
            failures.append(f"{name}: {case}: {found}")
    return Section(name=name, found=len(cases), right=len(cases) - wrong)


def _documents(schema: GraphQLSchema, failures: list[str]) -> Section:
    ours = [*agent_documents(), *command_documents()]
    checked = [each for each in ours if each.name not in FROM_WEBSERVER]
    invalid = {str(each): validate(schema, parse(each.text)) for each in checked}
    wrong = {name: errors[0].message for name, errors in invalid.items() if errors}
    failures += [f"document {name} is not valid: {error}" for name, error in wrong.items()]
    return Section(
        name="GraphQL documents, valid", found=len(ours) + len(COMMANDS_ELSEWHERE),
        right=len(checked) - len(wrong), excused=len(COMMANDS_ELSEWHERE) + len(FROM_WEBSERVER),
    )  # fmt: skip


def _executed(sent: set[str], failures: list[str]) -> Section:
    ours = agent_documents()
    missing = [str(each) for each in ours if not each.operations <= sent]
    failures += [f"document {each} was executed by no case" for each in missing]
    return Section(
        name="GraphQL documents, executed", found=len(ours), right=len(ours) - len(missing)
    )


def _methods(failures: list[str]) -> Section:
    every, covered = set(storage.methods()), storage.covered()
    failures += [f"storage method {each} has no case" for each in storage.uncovered()]
    return Section(
        name="storage methods", found=len(every), right=len(every & covered),
        excused=len(every - covered) - len(storage.uncovered()),
    )  # fmt: skip


def _requests(setting: RequestSetting, failures: list[str]) -> Section:
    """Count what was sent and answered, and what is not sent for a reason."""
    answered = _run("request types", REQUEST_CASES, lambda case: case.problem(setting), failures)
    unexplained = [
        *request_types.unexplained(),
        *(request_types.sent().keys() - {case.api for case in REQUEST_CASES}),
    ]
    failures += [f"request type {each} is not sent, for no reason" for each in unexplained]
    excused = len(request_types.NOT_SENT)
    return Section(
        name=answered.name, found=answered.found + excused + len(unexplained),
        right=answered.right, excused=excused,
    )  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Dagster prints away from the table, file descriptors included."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
