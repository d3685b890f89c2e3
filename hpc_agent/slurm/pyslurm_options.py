"""What a job script asks for by its ``#SBATCH`` lines, as attributes of pyslurm's description.

libslurm does not read those lines. pyslurm's own reader (25.11.2, ``core/job/sbatch_opts.pyx``,
``load_sbatch_options``) takes no quoted values, splits at every ``=`` and passes over what it does
not know. So they are read here, and only what is sure to mean the same both ways: a script with
anything else is unfit, and sbatch submits it. Each rule below was read off ``JobSubmitDescription``
of 25.11.2 (``core/job/submission.pyx``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from hpc_agent.slurm.batch_script import directives, foreign_directives
from hpc_agent.slurm.values import parse_duration, parse_memory

Attributes = Mapping[str, str | int | bool]

_LINE = re.compile(
    r"#SBATCH +--(?P<option>[a-z-]+)"
    r"(?:=(?:(?P<plain>[^\s\"'\\#]+)|\"(?P<quoted>(?:[^\"\\]|\\[\"\\])*)\"))? *"
)
_MEBIBYTE = 1 << 20


class UnfitError(ValueError):
    """A script that only sbatch can submit; the message says why."""


def attributes_of(script: str) -> Attributes:
    """Return what the script asks for. Raises UnfitError."""
    attributes: dict[str, str | int | bool] = {}
    for option, value in _options(script):
        rule = _RULES.get(option)
        if rule is None:
            raise UnfitError(f"--{option} is not for pyslurm")
        name, convert = rule
        attributes[name] = convert(option, value)
    if "memory_per_node" in attributes and "memory_per_cpu" in attributes:
        raise UnfitError("--mem and --mem-per-cpu exclude each other")
    return attributes


def _options(script: str) -> list[tuple[str, str | None]]:
    if not script.startswith("#!") or "\0" in script or "\r\n" in script:
        raise UnfitError("it is no script for sbatch")
    for line in foreign_directives(script):
        raise UnfitError(f"it has a line for another scheduler: {line!r}")
    return [_option(line) for line in directives(script)]


def _option(line: str) -> tuple[str, str | None]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise UnfitError(f"it has a line that only sbatch reads: {line!r}")
    quoted = match["quoted"]
    value = match["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return match["option"], value


def _text(option: str, value: str | None) -> str:
    if not value:
        raise UnfitError(f"--{option} has no value")
    return value


def _directory(option: str, value: str | None) -> str:
    path = _text(option, value)
    if not path.startswith("/"):
        raise UnfitError(f"--{option}={path} is relative")
    return path


def _number(option: str, value: str | None) -> int:
    text = _text(option, value)
    if not text.isascii() or not text.isdigit() or int(text) == 0:  # pyslurm takes 0 for "not set"
        raise UnfitError(f"--{option}={text} is no number above 0")
    return int(text)


def _one(option: str, value: str | None) -> int:
    """Pyslurm asks for one node unless told otherwise; where tasks may spread, sbatch knows how."""
    if _number(option, value) != 1:
        raise UnfitError(f"--{option}={value}: more than one")
    return 1


def _megabytes(option: str, value: str | None) -> int:
    size = parse_memory(_text(option, value))
    if not size or size % _MEBIBYTE:
        raise UnfitError(f"--{option}={value} is no whole number of megabytes above 0")
    return size // _MEBIBYTE


def _minutes(option: str, value: str | None) -> int | str:
    """Seconds make a whole minute more; pyslurm takes no digits as a text (``timestr_to_mins``)."""
    text = _text(option, value)
    if text.lower() in {"infinite", "unlimited"}:
        return "UNLIMITED"
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise UnfitError(f"--{option}: {error}") from None
    if not seconds:
        raise UnfitError(f"--{option}={text} is no time above 0")
    return -(-seconds // 60)


def _mode(option: str, value: str | None) -> str:
    if value not in {"append", "truncate"}:  # pyslurm passes over anything else
        raise UnfitError(f"--{option}={value} is not for pyslurm")
    return value


def _switch(meaning: bool) -> Callable[[str, str | None], bool]:
    def convert(option: str, value: str | None) -> bool:
        if value is not None:
            raise UnfitError(f"--{option} takes no value")
        return meaning

    return convert


_RULES: Mapping[str, tuple[str, Callable[[str, str | None], str | int | bool]]] = {
    "account": ("account", _text),
    "chdir": ("working_directory", _directory),
    "constraint": ("constraints", _text),
    "cpus-per-task": ("cpus_per_task", _number),
    "error": ("standard_error", _text),
    "mem": ("memory_per_node", _megabytes),
    "mem-per-cpu": ("memory_per_cpu", _megabytes),
    "no-requeue": ("is_requeueable", _switch(False)),
    "nodes": ("nodes", _one),
    "ntasks": ("ntasks", _one),
    "open-mode": ("log_files_open_mode", _mode),
    "output": ("standard_output", _text),
    "partition": ("partitions", _text),
    "qos": ("qos", _text),
    "requeue": ("is_requeueable", _switch(True)),
    "reservation": ("reservations", _text),
    "time": ("time_limit", _minutes),
}
