"""How commands print: JSON for scripts, one line for an error."""

from __future__ import annotations

import json
import sys
import unicodedata

EXIT_FAILURE = 1
EXIT_USAGE = 2
# Control and format characters, of which some turn the direction of writing.
_CONTROL = frozenset({"Cc", "Cf"})


def print_json(value: object) -> None:
    """Print a value as JSON, alone on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def printable(text: str) -> str:
    """Return a text without control characters: jobs and users make it, a terminal shows it."""
    return "".join(" " if unicodedata.category(each) in _CONTROL else each for each in text)


def printable_lines(text: str) -> str:
    """Return a text of several lines likewise; tabs stay, job scripts are printed as well."""
    return "".join(each if each in "\n\t" else printable(each) for each in text)


def print_line(text: str) -> None:
    """Print a line, or several, without what else a terminal obeys."""
    sys.stdout.write(printable_lines(text) + "\n")


def is_terminal() -> bool:
    """Whether somebody looks at standard output."""
    return sys.stdout.isatty()


def print_error(text: str) -> None:
    """Print an error to standard error, without what a terminal obeys."""
    sys.stderr.write(f"hpc-agent: {printable_lines(text)}\n")
