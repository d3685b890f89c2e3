"""Read the ``#SBATCH`` lines of a job script as far as they matter without Slurm.

Source: sbatch(1), OPTIONS and "FILENAME PATTERN". Options about resources are left to Slurm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.slurm.batch_script import directive_words, interpreter_of
from hpc_agent.slurm.values import parse_duration

_SHORT = {"-o": "--output", "-e": "--error", "-D": "--chdir", "-t": "--time"}
_KNOWN = frozenset({"--output", "--error", "--chdir", "--time", "--signal"})
_WARNING = re.compile(r"(?:[BR]+:)?(?:SIG)?(?P<name>[A-Z0-9]+)(?:@(?P<seconds>\d+))?")
_PATTERN = re.compile(r"%(\d*)([jAJxNu%])")
_DEFAULT_WARNING_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a job script says about how it wants to be run."""

    interpreter: tuple[str, ...]
    output: str = "slurm-%j.out"
    error: str | None = None
    working_directory: str | None = None
    time_limit_seconds: int | None = None
    warning_signal: str | None = None
    warning_seconds: int = 0


def parse_script(text: str) -> Script:
    """Read interpreter and options. Raises ValueError, in words for the user, like sbatch would."""
    interpreter, options = interpreter_of(text), _options(text)
    warning = _WARNING.fullmatch(options.get("--signal", ""))
    return Script(
        interpreter=interpreter,
        output=options.get("--output", "slurm-%j.out"),
        error=options.get("--error"),
        working_directory=options.get("--chdir"),
        time_limit_seconds=parse_duration(options.get("--time", "")),
        warning_signal=warning["name"] if warning else None,
        warning_seconds=int(warning["seconds"] or _DEFAULT_WARNING_SECONDS) if warning else 0,
    )


def expand(pattern: str, *, job_id: str, name: str, host: str, user: str, directory: Path) -> Path:
    """Replace ``%j`` and its kin and make the path absolute below the working directory."""
    # A slash in a job's name must not lead elsewhere (Slurm replaces it as well).
    values = {"j": job_id, "A": job_id, "J": job_id, "N": host, "u": user, "%": "%"}
    values["x"] = name.replace("/", "_")
    text = _PATTERN.sub(lambda match: values[match[2]].rjust(int(match[1] or 0), "0"), pattern)
    return directory / text


def _options(text: str) -> dict[str, str]:
    """Return the known options of the ``#SBATCH`` lines."""
    found: dict[str, str] = {}
    for words in directive_words(text):
        found |= _known(words)
    return found


def _known(words: list[str]) -> dict[str, str]:
    found = {}
    for number, word in enumerate(words):
        option, equals, value = word.partition("=")
        following = words[number + 1] if number + 1 < len(words) else ""
        if option in _KNOWN:
            found[option] = value if equals else following
        elif word[:2] in _SHORT:
            found[_SHORT[word[:2]]] = word[2:] or following
    return found
