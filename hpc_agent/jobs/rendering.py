"""Job scripts from Jinja templates in which everything is quoted by default."""

from __future__ import annotations

import re
import shlex
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import (
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PrefixLoader,
    StrictUndefined,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
    Undefined,
)
from markupsafe import Markup

from hpc_agent import errors

PACKAGED = Path(__file__).parent.parent / "templates"
SUFFIX = ".sbatch.j2"
BASE = f"job{SUFFIX}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptValues:
    """What a job template may use.

    ``directives`` are complete options (``--partition=batch``); ``exports`` are pairs of name and
    value; ``setup`` and ``teardown`` lines are the site's own shell and go in as they are.
    ``prefix`` is the directory of a Python environment, ``packed`` its archive, which nodes unpack
    below ``unpack_directory``; ``in_bundle``: the script itself runs in an OCI bundle.
    """

    key: str
    title: str
    directives: Sequence[str]
    exports: Sequence[tuple[str, str]]
    modules: Sequence[str]
    setup: Sequence[str]
    node_python: str
    node_program: str
    job_directory: str
    purge_modules: bool = False
    omp_num_threads: bool = True
    env_file: str | None = None
    prefix: str | None = None
    is_conda: bool = False
    packed: str | None = None
    unpack_directory: str = "/tmp"  # noqa: S108  (nothing is made in it that is not ours)
    teardown: Sequence[str] = ()
    umask: str = "077"
    in_bundle: bool = False


class Templates:
    """Renders job scripts; a site's own directory comes before the packaged templates.

    A site's ``job.sbatch.j2`` may extend the one that it hides as ``packaged/job.sbatch.j2``.
    """

    def __init__(self, site_directory: Path | None = None) -> None:
        self._directories = [site_directory, PACKAGED] if site_directory else [PACKAGED]
        packaged = PrefixLoader({"packaged": FileSystemLoader(PACKAGED)})
        self._environment = Environment(
            loader=ChoiceLoader([FileSystemLoader(self._directories), packaged]),
            undefined=StrictUndefined,
            finalize=_quote,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            # What is Markup already goes through as it is: {{ super() }}, macros, our filters.
            autoescape=True,
        )
        self._environment.filters["directive"] = directive
        self._environment.filters["comment"] = _comment
        self._environment.filters["variable"] = _variable
        self._environment.filters["verbatim"] = Markup

    def render(self, name: str, values: ScriptValues) -> str:
        """Return a job script. Raises TemplateError with the template's file and line."""
        try:
            template = self._environment.get_template(name)
            return template.render({field: getattr(values, field) for field in values.__slots__})
        except TemplateNotFound as error:
            raise errors.TemplateError(
                f"template {self._file(name)}: there is no template {error.message}"
            ) from None
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise errors.TemplateError(f"template {self._place(name, error)}: {error}") from None

    def files(self) -> dict[str, Path]:
        """Return the file that each job template comes from, by name."""
        names = {path.name for place in self._directories for path in place.glob(f"*{SUFFIX}")}
        return {name: self._file(name) for name in sorted(names)}

    def _file(self, name: str) -> Path:
        places = [place / name for place in self._directories]
        return next((path for path in places if path.is_file()), places[0])

    def _place(self, name: str, error: Exception) -> str:
        """Say in which file and line an error is: Jinja puts those of templates in tracebacks."""
        if isinstance(error, TemplateSyntaxError):
            return f"{error.filename or self._file(name)}, line {error.lineno}"
        frames = traceback.extract_tb(error.__traceback__)
        inside = [frame for frame in frames if frame.filename.endswith(".j2")]
        return f"{inside[-1].filename}, line {inside[-1].lineno}" if inside else name


def _quote(value: object) -> object:
    if isinstance(value, Undefined | Markup):
        return value
    return Markup(shlex.quote(str(value)))  # noqa: S704 - shell, not HTML


def directive(text: str) -> Markup:
    """Quote an ``#SBATCH`` option: sbatch reads quotes and backslashes there much like a shell.

    Raises TemplateError for a line break.
    """
    if any(character in text for character in "\n\r\0"):
        raise errors.TemplateError(f"a Slurm option cannot hold a line break: {text!r}")
    if all(character.isalnum() or character in "-_=./:,%+@[]" for character in text):
        return Markup(text)  # noqa: S704 - shell, not HTML
    option, equals, value = text.partition("=")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return Markup(f'{option}{equals}"{escaped}"')  # noqa: S704


def _variable(name: str) -> Markup:
    """Let through what is a name to the shell, since a name cannot be quoted."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise errors.TemplateError(f"{name!r} is no name of an environment variable")
    return Markup(name)  # noqa: S704


def _comment(text: str) -> Markup:
    """Make text fit behind a ``#``: one line, and never an ``#SBATCH`` of its own."""
    return Markup(" ".join(str(text).split()).replace("#", ""))  # noqa: S704
