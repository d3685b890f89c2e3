"""How commands print: JSON for scripts, one line for an error."""

from __future__ import annotations

import json
import sys

EXIT_FAILURE = 1
EXIT_USAGE = 2


def print_json(value: object) -> None:
    """Print a value as JSON, alone on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_line(text: str) -> None:
    """Print one line."""
    sys.stdout.write(text + "\n")


def is_terminal() -> bool:
    """Whether somebody looks at standard output."""
    return sys.stdout.isatty()


def print_error(text: str) -> None:
    """Print an error to standard error."""
    sys.stderr.write(f"hpc-agent: {text}\n")
