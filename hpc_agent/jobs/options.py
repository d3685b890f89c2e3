"""Slurm options: which ones may be set, what their values look like, and which source wins.

Names are those of sbatch(1) without the dashes. A value that does not match its pattern never gets
near a script: patterns admit no white space, quotes, ``#`` or shell characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hpc_agent.errors import ConfigError

TAG_PREFIX = "dagster-hpc/"
CONFIG_TAG = TAG_PREFIX + "config"

_WORD = r"[A-Za-z0-9_.+-]+"
_LIST = rf"{_WORD}(,{_WORD})*"
_NUMBER = r"[0-9]+"
_SIZE = r"[0-9]+[KMGTkmgt]?"
_TIME = r"([0-9]+-)?[0-9]+(:[0-9]{1,2}){0,2}"
_TRES = r"[A-Za-z0-9_.:/=+-]+(,[A-Za-z0-9_.:/=+-]+)*"

PATTERNS: Mapping[str, str] = {
    "account": _WORD,
    "begin": r"[A-Za-z0-9:+-]+",
    "constraint": r"[A-Za-z0-9_.:*&|,\[\]()+-]+",
    "cpus-per-task": _NUMBER,
    "exclude": r"[A-Za-z0-9_.,\[\]-]+",
    "gpus": _TRES,
    "gres": _TRES,
    "licenses": _TRES,
    "mem": _SIZE,
    "mem-per-cpu": _SIZE,
    "nice": r"-?[0-9]+",
    "nodelist": r"[A-Za-z0-9_.,\[\]-]+",
    "nodes": r"[0-9]+(-[0-9]+)?",
    "ntasks": _NUMBER,
    "partition": _LIST,
    "qos": _WORD,
    "reservation": _LIST,
    "signal": r"(B:)?[A-Za-z0-9]+(@[0-9]+)?",
    "time": _TIME,
    "tmp": _SIZE,
}


@dataclass(frozen=True, slots=True)
class Source:
    """Options from one place; ``name`` is what an error message calls it."""

    name: str
    options: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of one option, and the source that set it."""

    option: str
    value: str
    source: str

    @property
    def directive(self) -> str:
        """The option as sbatch takes it."""
        return f"--{self.option}={self.value}"


def merge(sources: Iterable[Source]) -> tuple[Setting, ...]:
    """Merge options, later sources over earlier ones. Raises ConfigError for a wrong one."""
    merged: dict[str, Setting] = {}
    for source in sources:
        for option, value in source.options.items():
            merged[option] = _check(source.name, option, value)
    return tuple(merged[option] for option in sorted(merged))


def from_tags(tags: Mapping[str, str]) -> Source:
    """Read the options in a run's tags: one tag each, over the JSON in ``dagster-hpc/config``.

    Raises ConfigError when that JSON is not an object of options.
    """
    options: dict[str, object] = {}
    if CONFIG_TAG in tags:
        try:
            content = json.loads(tags[CONFIG_TAG])
        except json.JSONDecodeError as error:
            raise ConfigError(f"tag {CONFIG_TAG}: not valid JSON: {error}") from None
        if not isinstance(content, dict):
            raise ConfigError(f"tag {CONFIG_TAG}: must be a JSON object of Slurm options")
        options.update(content)
    for tag, value in tags.items():
        option = tag.removeprefix(TAG_PREFIX)
        if option in PATTERNS and tag.startswith(TAG_PREFIX):
            options[option] = value
    return Source("run tags", options)


def _check(source: str, option: str, value: object) -> Setting:
    pattern = PATTERNS.get(option)
    if pattern is None:
        known = ", ".join(sorted(PATTERNS))
        raise ConfigError(f"{source}: unknown Slurm option {option!r}; known are {known}")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"{source}: Slurm option {option}: {value!r} is not a text or a number")
    text = str(value)
    if not re.fullmatch(pattern, text):
        raise ConfigError(f"{source}: Slurm option {option}: {text!r} is not a value sbatch takes")
    return Setting(option, text, source)
