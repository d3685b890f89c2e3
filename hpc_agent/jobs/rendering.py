"""Job scripts from Jinja templates in which everything is quoted by default."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, Undefined
from markupsafe import Markup

from hpc_agent import errors

PACKAGED = Path(__file__).parent.parent / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptValues:
    """What a job template may use.

    ``directives`` are complete options (``--partition=batch``); ``exports`` are pairs of name and
    value; ``setup`` and ``teardown`` lines are the site's own shell and go in as they are.
    ``prefix`` is the directory of a Python environment.
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
    env_file: str | None = None
    prefix: str | None = None
    is_conda: bool = False
    teardown: Sequence[str] = ()
    umask: str = "077"


class Templates:
    """Renders job scripts; a site's own directory comes before the packaged templates."""

    def __init__(self, site_directory: Path | None = None) -> None:
        directories = [site_directory, PACKAGED] if site_directory else [PACKAGED]
        self._environment = Environment(
            loader=FileSystemLoader([str(directory) for directory in directories]),
            undefined=StrictUndefined,
            finalize=_quote,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,  # noqa: S701 - finalize quotes for the shell, which HTML escapes do not
        )
        self._environment.filters["directive"] = _directive
        self._environment.filters["comment"] = _comment
        self._environment.filters["variable"] = _variable
        self._environment.filters["verbatim"] = Markup

    def render(self, name: str, values: ScriptValues) -> str:
        """Return a job script. Raises TemplateError with the template's name and line."""
        try:
            template = self._environment.get_template(name)
            return template.render({field: getattr(values, field) for field in values.__slots__})
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            where = f"{name}, line {line}" if line else name
            raise errors.TemplateError(f"template {where}: {error}") from None


def _quote(value: object) -> object:
    if isinstance(value, Undefined | Markup):
        return value
    return shlex.quote(str(value))


def _directive(text: str) -> Markup:
    """Quote an ``#SBATCH`` option: sbatch reads quotes and backslashes there much like a shell."""
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
