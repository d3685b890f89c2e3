"""Rendering of units and scripts: every value goes through a filter that quotes it."""

from __future__ import annotations

import shlex

import jinja2

from hpc_agent.errors import TemplateError
from hpc_agent.service.quoting import escape_rest_of_line, quote_argument, quote_word


def render(template: str, **values: object) -> str:
    """Return the text of a packaged template. Raises TemplateError."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hpc_agent", "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - neither a unit file nor a script is HTML
    )
    environment.filters |= {
        "word": quote_word,
        "argument": quote_argument,
        "rest_of_line": escape_rest_of_line,
        "shell": lambda text: shlex.quote(str(text)),
    }
    try:
        return environment.get_template(template).render(**values)
    except jinja2.TemplateError as error:
        raise TemplateError(f"{template}: {error}") from error
