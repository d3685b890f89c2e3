"""All pages by their names: those of docs/, and those that are made from the code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from hpc_agent.errors import UsageError
from hpc_agent.hints import did_you_mean
from hpc_agent.manual import blocks, commands, settings, tags

REFERENCE = "reference"
START = "index"
_NOT_FOR_READERS = frozenset({REFERENCE, "_build"})
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
# What only the site understands: lists of pages for its margin.
_DIRECTIVE = re.compile(r"^```\{.*?^```\n?", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page: its name is its path below docs/ without ``.md``."""

    name: str
    read: Callable[[], str]

    @property
    def title(self) -> str:
        """The page's first heading."""
        found = _TITLE.search(self.read())
        return found[1] if found else self.name

    @property
    def text(self) -> str:
        """The page as Markdown that every reader of Markdown understands."""
        return _DIRECTIVE.sub("", self.read())


def library(root: commands.Command) -> dict[str, Page]:
    """Return all pages by their names; ``root`` is the command ``hpc-agent`` itself."""
    found = [*_written(), *(_made(*each) for each in reference(root).items())]
    return {page.name: page for page in found}


def reference(root: commands.Command) -> dict[str, str]:
    """Return the text of the pages that are made from the code, by their names below reference/."""
    return {**commands.pages(root), **settings.pages(), **tags.pages(), **blocks.pages()}


def find(pages: dict[str, Page], name: str) -> Page:
    """Return a page by its name, or the last part of it. Raises UsageError when there is none."""
    wanted = name.removesuffix(".md").removeprefix("docs/")
    if wanted in pages:
        return pages[wanted]
    alike = [page for page in pages.values() if page.name.rpartition("/")[2] == wanted]
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise UsageError(f"which {wanted}: {', '.join(page.name for page in alike)}?")
    hint = did_you_mean(wanted, [page.rpartition("/")[2] for page in pages])
    raise UsageError(f"there is no page {wanted!r}{hint}; `hpc-agent docs --list` shows all")


def _written() -> Iterator[Page]:
    top = Path(str(files("hpc_agent").joinpath("manual", "pages")))
    for path in sorted(top.rglob("*.md")):
        parts = path.relative_to(top).with_suffix("").parts
        if parts[0] not in _NOT_FOR_READERS:
            yield Page(name="/".join(parts), read=path.read_text)


def _made(name: str, text: str) -> Page:
    return Page(name=f"{REFERENCE}/{name}", read=lambda: text)
