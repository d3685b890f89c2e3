"""The tables of options in docs/options.md, and the rows of ``hpc-agent options list``."""

from __future__ import annotations

from hpc_agent.jobs.options import TAG_PREFIX
from hpc_agent.jobs.options_table import EXTRA, OPTIONS, REFUSED


def rows() -> list[dict[str, str]]:
    """Return one row for each option that may be set."""
    return [
        {
            "option": option.name,
            "value": option.form,
            "example": option.example,
            "tag": TAG_PREFIX + option.name,
            "pattern": option.pattern,
        }
        for option in OPTIONS.values()
    ]


def markdown() -> str:
    """Return all tables: options, the rarer ones, and those that cannot be set."""
    lines = ["| option | value | example |", "|---|---|---|"]
    lines += [f"| `{row['option']}` | {row['value']} | `{row['example']}` |" for row in rows()]
    lines += ["", f"In `extra`: {', '.join(f'`{name}`' for name in sorted(EXTRA))}.", ""]
    lines += ["| cannot be set | why |", "|---|---|"]
    lines += [f"| `{name}` | {reason} |" for name, reason in sorted(REFUSED.items())]
    return "\n".join(lines)
