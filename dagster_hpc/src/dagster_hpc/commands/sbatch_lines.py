"""The ``#SBATCH`` lines of a script, read as sbatch reads them (sbatch(1) of 22.05 to 25.11)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dagster_hpc.options import SlurmOptions, checked
from dagster_hpc.options_table import EXTRA, OPTIONAL, OPTIONS, REFUSED, SHORT, SWITCHES

_DEFAULT: Mapping[str, str] = {"nice": "100"}
_HARMLESS: Mapping[str, str] = {
    "error": "its output is in the log of the step",
    "job-name": "the job has a name by which it is found again",
    "open-mode": "its output is in the log of the step",
    "output": "its output is in the log of the step",
    "parsable": "nobody reads what sbatch prints",
    "quiet": "nobody reads what sbatch prints",
    "verbose": "nobody reads what sbatch prints",
    "wait": "the job is waited for",
}
_INSTEAD: Mapping[str, str] = {
    "array": "partitions, or steps that are mapped, are what is an array in Dagster",
    "comment": "the agent finds its jobs by it",
    "export": "name variables with environment=",
    "hetjob": "give each part a job of its own",
}


class ScriptError(Exception):
    """A script is not there, or asks for what cannot be given: file, line, and what to do."""


@dataclass
class Asked:
    """What the lines of a script add up to; a later one wins, as sbatch has it."""

    path: str
    known: dict[str, str | bool] = field(default_factory=dict)
    extra: dict[str, str | int | bool] = field(default_factory=dict)
    directory: str | None = None
    ignored: list[str] = field(default_factory=list)

    def add(self, name: str, value: str | None) -> None:
        """Take an option. Raises ValueError that says what to do instead."""
        value = _DEFAULT.get(name) if value is None else value
        if name == "chdir":
            self.directory = value
        elif name == "no-requeue":
            self.known["requeue"] = False
        elif name in _HARMLESS or (name == "export" and value == "ALL"):
            self.ignored.append(f"--{name}: {_HARMLESS.get(name, 'that is how it is')}")
        elif name in OPTIONS:
            # sbatch takes events of mail in small letters as well.
            text = value.upper() if value is not None and name == "mail-type" else value
            self.known[name] = True if text is None else text
            checked({name: self.known[name]})
        elif name in EXTRA:
            self.extra[name] = True if value is None else value
            checked({"extra": {name: self.extra[name]}})
        elif name in _INSTEAD or name in REFUSED:
            raise ValueError(f"--{name} cannot be set: {_INSTEAD.get(name) or REFUSED[name]}")
        else:
            raise ValueError(f"sbatch has no option --{name}, or it has no meaning here")

    def options(self) -> SlurmOptions:
        """Return the options of all lines. Raises ScriptError where they exclude each other."""
        named = {name.replace("-", "_"): value for name, value in self.known.items()}
        try:
            return SlurmOptions(**named, extra=self.extra or None)
        except ValueError as error:
            raise ScriptError(f"{self.path}: {error}") from None


def asked_for(path: str) -> Asked:
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError as error:
        raise ScriptError(
            f"{path}: {error.strerror}; paths are relative to {Path.cwd()}, the working directory "
            "of the code location"
        ) from None
    asked = Asked(path)
    for number, text in _directives(lines):
        try:
            for name, value in _options(text):
                asked.add(name, value)
        except ValueError as error:
            raise ScriptError(f"{path}, line {number}: {error}") from None
    return asked


def _directives(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield line numbers and what stands behind #SBATCH, down to the first command."""
    for number, line in enumerate(lines, start=1):
        if line.startswith("#SBATCH"):
            yield number, line.removeprefix("#SBATCH")
        elif line.strip() and not line.lstrip().startswith("#"):
            return


def _options(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield names and values, as getopt_long(3) reads them. Raises ValueError."""
    words = shlex.split(text, comments=True)
    while words:
        word = words.pop(0)
        if word in {"hetjob", "packjob"}:
            raise ValueError(f"a heterogeneous job is not supported: {_INSTEAD['hetjob']}")
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = _whole(name)
            if equals:
                yield name, value
                continue
        elif word.startswith("-") and word[1:2] in SHORT:
            name = SHORT[word[1]]
            value = word[2:]
            if name in SWITCHES and value:
                words.insert(0, f"-{value}")
            elif value:
                yield name, value.removeprefix("=")
                continue
        else:
            raise ValueError(f"{word!r} is no option of sbatch")
        if name in SWITCHES or name in OPTIONAL:
            yield name, None
        elif words:
            yield name, words.pop(0)
        else:
            raise ValueError(f"--{name} has no value")


def _whole(name: str) -> str:
    """Return the name of an option of which the beginning is enough."""
    names = {*OPTIONS, *EXTRA, *REFUSED, *_HARMLESS}
    if name in names:
        return name
    longer = [each for each in names if name and each.startswith(name)]
    return longer[0] if len(longer) == 1 else name
