"""Where a step runs: what its tags and the executor's default say of it."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping

from dagster_hpc.jobs import Tags
from dagster_hpc.options import TAG_PREFIX, options_of_tags

STEP_TAG = TAG_PREFIX + "step"
GROUP_TAG = TAG_PREFIX + "group"

_OF_SRUN = ("cpus-per-task", "mem", "mem-per-cpu", "gpus-per-task", "gres", "ntasks")
_SRUN_DEFAULTS: Mapping[str, str] = {
    "cpus-per-task": "1",
    "ntasks": "1",
    # srun(1): otherwise one step takes all the memory of the job, and the next one waits for it.
    "mem": "0",
}


class Place(enum.Enum):
    """Where a step runs, seen from the run worker."""

    JOB = "job"
    SRUN = "srun"
    PROCESS = "process"
    IN_PROCESS = "in_process"


AUTO = "auto"


def place_of(tags: Tags, default: str) -> Place:
    """Return a step's place. Raises ValueError for a word that is none, or a wrong option."""
    options = options_of_tags(tags)
    word = tags.get(STEP_TAG, default)
    if word == AUTO:
        return Place.JOB if options or GROUP_TAG in tags else Place.PROCESS
    try:
        place = Place(word)
    except ValueError:
        words = ", ".join(each.value for each in Place)
        raise ValueError(f"tag {STEP_TAG} is {word!r}; it must be one of {words}") from None
    if place is Place.SRUN and "SLURM_JOB_ID" not in os.environ:
        return Place.PROCESS
    return place


def srun_words(tags: Tags) -> list[str]:
    """Return what starts a command as a step in the allocation that this process is in."""
    options = options_of_tags(tags)
    asked = {name: options[name] for name in _OF_SRUN if name in options}
    defaults = dict(_SRUN_DEFAULTS)
    if "mem-per-cpu" in asked:
        del defaults["mem"]
    return [
        "srun",
        "--exact",
        "--input=none",
        "--kill-on-bad-exit=1",
        *(f"--{name}={value}" for name, value in {**defaults, **asked}.items()),
    ]
