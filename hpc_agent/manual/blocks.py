"""The page of templates: their blocks, with what the packaged files put there."""

from __future__ import annotations

import re
from importlib.resources import files

from hpc_agent.manual.markdown import fenced

PAGE = "templates"
BASE = "job.sbatch.j2"
_ABOUT = f"""\
Every job script is rendered from `{BASE}` by way of `run_worker.sbatch.j2`,
`code_server.sbatch.j2` or `pack.sbatch.j2`, which only extend it; `step.sbatch.j2` extends the
first of them.
[Templates](../options.md#templates) says what each block is for, and how a site puts its own in its
place; `hpc-agent template show` prints whole files."""


def pages() -> dict[str, str]:
    """Return the text of the page by its name."""
    parts = ["# Template blocks", _ABOUT]
    for name, text in blocks().items():
        parts += [f"## {name}", fenced(text, "jinja") if text.strip() else "Empty in the package."]
    return {PAGE: "\n\n".join(parts) + "\n"}


def blocks() -> dict[str, str]:
    """Return what the packaged base has in each block, the inner ones of a block included."""
    source = files("hpc_agent").joinpath("templates", BASE).read_text()
    opening = re.compile(r"^{% block (\w+) %}\n", re.MULTILINE)
    return {found[1]: _body(source[found.end() :]) for found in opening.finditer(source)}


def _body(rest: str) -> str:
    """Return the text up to the end of the block that has just begun."""
    depth = 1
    for found in re.finditer(r"{% (end)?block\b[^%]*%}\n?", rest):
        depth += -1 if found[1] else 1
        if depth == 0:
            return rest[: found.start()]
    return rest
