"""The site: pages of this directory, and in reference/ what is made from the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from typer.main import get_command

from hpc_agent import __version__
from hpc_agent.cli import app as cli
from hpc_agent.manual.library import REFERENCE, reference

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent

project = "hpc-agent"
author = "the authors of hpc-agent"
release = version = __version__
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
nitpicky = True

html_theme = "furo"
html_title = f"hpc-agent {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = False


def setup(app: Sphinx) -> None:
    """Write the reference before pages are looked for; show files of the repository as names."""
    app.connect("builder-inited", write_reference)
    app.connect("source-read", without_links_to_repository)
    app.connect("source-read", with_the_rest)


def write_reference(_: Sphinx) -> None:
    """Write each page that has changed, so that a second build reads only what is new."""
    directory = HERE / REFERENCE
    directory.mkdir(exist_ok=True)
    pages = {f"{name}.md": text for name, text in reference(get_command(cli)).items()}
    for old in directory.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = directory / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def without_links_to_repository(app: Sphinx, page: str, source: list[str]) -> None:
    """Turn a link that leaves this directory into its text."""
    directory = (Path(app.srcdir) / page).parent

    def replaced(link: re.Match[str]) -> str:
        target = (directory / link[2].partition("#")[0]).resolve()
        return link[0] if target.is_relative_to(HERE.resolve()) else link[1]

    source[0] = re.sub(r"\[([^\]\[]+)\]\((\.\./[^)]+)\)", replaced, source[0])


def with_the_rest(app: Sphinx, page: str, source: list[str]) -> None:
    """Put pages that the index does not name into its last list, so that none gets lost."""
    if page == "index":
        named = set(re.findall(r"^[\w/-]+$", source[0], re.MULTILINE))
        rest = sorted(
            name for name in app.env.found_docs - named if name != page and "/" not in name
        )
        source[0] = source[0].replace("REST", "\n".join(rest))
