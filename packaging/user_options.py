"""Writes the table of Slurm options of ``dagster_hpc`` from the agent's own.

python packaging/user_options.py [FILE]
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from hpc_agent.jobs.options_table import EXTRA, EXTRA_VALUE, ONE_OF, OPTIONS, REFUSED, Option
from hpc_agent.slurm.batch_options import OPTIONAL, SHORT, SWITCHES

TABLE = Path(__file__).parents[1] / "dagster_hpc" / "src" / "dagster_hpc" / "options_table.py"

_HEAD = '''\
"""The Slurm options that user code may set; written by packaging/user_options.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """What an option's value must look like; a switch may be true or false as well."""

    pattern: str
    form: str
    example: str
    is_switch: bool = False


@dataclass(frozen=True, kw_only=True)
class Fields:
    """One field for each option of sbatch, "_" for "-"."""

'''


def render() -> str:
    """Return the module's text, as ruff formats it."""
    lines = [_HEAD]
    lines += [f"    {name.replace('-', '_')}: {_type(each)} = None\n" for name, each in _options()]
    lines += ["\n\nOPTIONS: Mapping[str, Option] = {\n"]
    lines += [f"    {_text(name)}: Option({_arguments(each)}),\n" for name, each in _options()]
    groups = sorted(sorted(group) for group in ONE_OF)
    lines += ["}\n\nONE_OF: tuple[frozenset[str], ...] = (\n"]
    lines += [f"    frozenset([{', '.join(map(_text, group))}]),\n" for group in groups]
    lines += [")\n\nREFUSED: Mapping[str, str] = {\n"]
    lines += [f"    {_text(name)}: {_text(why)},\n" for name, why in sorted(REFUSED.items())]
    lines += ["}\n\nEXTRA = frozenset([\n", *_each(EXTRA)]
    lines += [f"])\n\nEXTRA_VALUE = r{_text(EXTRA_VALUE)}\n\nSHORT: Mapping[str, str] = {{\n"]
    lines += [f"    {_text(name)}: {_text(long)},\n" for name, long in sorted(SHORT.items())]
    lines += ["}\n\nSWITCHES = frozenset([\n", *_each(SWITCHES), "])\n"]
    lines += [
        '"""Options that take no value."""\nOPTIONAL = frozenset([\n',
        *_each(OPTIONAL),
        "])\n",
    ]
    lines += ['"""Options whose value, if there is one, is in the same word."""\n']
    return _formatted("".join(lines))


def _each(names: Iterable[str]) -> list[str]:
    return [f"    {_text(name)},\n" for name in sorted(names)]


def _options() -> list[tuple[str, Option]]:
    return sorted(OPTIONS.items())


def _type(option: Option) -> str:
    return "bool | str | None" if option.is_switch else "str | int | None"


def _arguments(option: Option) -> str:
    words = [repr(option.pattern), _text(option.form), _text(option.example)]
    return ", ".join([*words, *(["is_switch=True"] if option.is_switch else [])])


def _text(text: str) -> str:
    return json.dumps(text)


def _formatted(text: str) -> str:
    ruff = Path(sys.executable).with_name("ruff")
    argv = [str(ruff), "format", "--stdin-filename", str(TABLE), "-"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else TABLE).write_text(render())
