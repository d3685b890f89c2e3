"""Batch scripts as they are: what they ask for, how they are started, and what they leave."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dagster_hpc.commands.sbatch_lines import ScriptError, asked_for
from dagster_hpc.options import SlurmOptions


@dataclass(frozen=True)
class SlurmScript:
    """An existing batch script; ``path`` is relative to the working directory of the location.

    It is read when it is named, and run as it is. ``outputs`` names the files that it has written
    when it has succeeded: label and path or pattern, relative to the directory that the script
    works in; ``{partition_key}`` and ``{run_id}`` are filled in. Raises ScriptError.
    """

    path: str
    outputs: Mapping[str, str] = field(default_factory=dict)
    options: SlurmOptions = field(init=False)
    directory: str | None = field(init=False)
    ignored: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        """Read the script and check what it says."""
        asked = asked_for(self.path)
        object.__setattr__(self, "directory", asked.directory)
        object.__setattr__(self, "ignored", tuple(asked.ignored))
        object.__setattr__(self, "options", asked.options())
        for label, output in self.outputs.items():
            _refuse_stray(label, output)

    def output_paths(self, values: Mapping[str, str]) -> dict[str, Path]:
        """Return where the outputs are to be, by label. Raises ScriptError for a stray one."""
        base = Path(self.directory or ".").absolute()
        paths = {}
        for label, output in self.outputs.items():
            try:
                filled = output.format_map(values)
            except (KeyError, ValueError, IndexError) as error:
                raise ScriptError(
                    f"output {label}: {output!r} cannot be filled in: {error}"
                ) from None
            _refuse_stray(label, filled)
            paths[label] = base / filled
        return paths

    def argv(self, arguments: Sequence[str] = ()) -> list[str]:
        """Return the command: the script by its own interpreter line."""
        path = str(Path(self.path).absolute())
        return [*_interpreter(path), path, *arguments]


def _refuse_stray(label: str, output: str) -> None:
    if not output or Path(output).is_absolute() or ".." in Path(output).parts or "\0" in output:
        raise ScriptError(
            f"output {label}: {output!r} must be a path below the directory that the script works "
            "in: without a / in front, and without .."
        )


def _interpreter(path: str) -> list[str]:
    """Return the words that the script's first line has, as execve(2) reads it; else bash."""
    with Path(path).open("rb") as file:
        first = os.fsdecode(file.readline(256))
    if not first.startswith("#!"):
        return ["/bin/bash"]
    return first[2:].strip().split(None, 1) or ["/bin/bash"]
