"""Slurm options of a step, a command or a run: typed in code, and as tags of Dagster."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from dagster_hpc.jobs import JobError, Tags
from dagster_hpc.options_table import EXTRA, EXTRA_VALUE, ONE_OF, OPTIONS, REFUSED, Fields

TAG_PREFIX = "dagster-hpc/"
_CONFIG = "config"
_EXTRA = "extra"
_LONGEST_VALUE = 4000


@dataclass(frozen=True, kw_only=True)
class SlurmOptions(Fields):
    """Options as sbatch names them, "_" for "-"; ``extra`` has those without a field.

    ``SlurmOptions(cpus_per_task=4, mem="8G")``. Raises ValueError for what sbatch would not take.
    """

    extra: Mapping[str, str | int | bool] | None = None

    def __post_init__(self) -> None:
        """Refuse what is wrong where it is written."""
        checked(self._given())

    def __or__(self, other: SlurmOptions) -> SlurmOptions:
        """Return these options with those of ``other`` over them."""
        merged = {**self._given(), **other._given()}
        for group in ONE_OF:
            if newer := group & other._given().keys():
                merged = {name: merged[name] for name in merged if name not in group - newer}
        extra = {**(self.extra or {}), **(other.extra or {})}
        named = {name.replace("-", "_"): value for name, value in merged.items()}
        return SlurmOptions(**{**named, "extra": extra or None})  # type: ignore[arg-type]

    def tags(self) -> dict[str, str]:
        """Return them as tags of an op, an asset, a job or a run."""
        found = {TAG_PREFIX + name: value for name, value in checked(self._plain()).items()}
        if self.extra:
            found[TAG_PREFIX + _EXTRA] = json.dumps(dict(self.extra), sort_keys=True)
        return found

    def _given(self) -> dict[str, object]:
        return {
            each.name.replace("_", "-"): value
            for each in fields(self)
            if (value := getattr(self, each.name)) is not None
        }

    def _plain(self) -> dict[str, object]:
        return {name: value for name, value in self._given().items() if name != _EXTRA}


def checked(options: Mapping[str, object]) -> dict[str, str]:
    """Return options as sbatch takes them, those in ``extra`` too. Raises ValueError."""
    found: dict[str, str] = {}
    for name, value in options.items():
        if name == _EXTRA:
            found.update(_extras(value))
        elif name in REFUSED:
            raise ValueError(f"Slurm option {name} cannot be set: {REFUSED[name]}")
        elif name not in OPTIONS:
            raise ValueError(f"unknown Slurm option {name!r}")
        else:
            found[name] = _text(name, value)
    for group in ONE_OF:
        both = sorted(group & found.keys())
        if len(both) > 1:
            raise ValueError(f"{' and '.join(both)} exclude each other; set one of them")
    return found


def options_of_tags(tags: Tags) -> dict[str, str]:
    """Return the options in tags: one tag each, over the JSON in ``dagster-hpc/config``.

    Raises ValueError.
    """
    options: dict[str, object] = {}
    if config := tags.get(TAG_PREFIX + _CONFIG):
        options.update(_json_object(_CONFIG, config))
    for tag, value in tags.items():
        name = tag.removeprefix(TAG_PREFIX)
        if name == tag:
            continue
        if name == _EXTRA:
            options[name] = _json_object(name, value)
        elif name in OPTIONS or name in REFUSED:
            options[name] = value
    return checked(options)


def options_of(steps: Sequence[tuple[str, Tags]]) -> dict[str, str]:
    """Return the options that hold for all steps of a job. Raises JobError where they differ."""
    found: dict[str, tuple[str, str]] = {}
    for step, tags in steps:
        try:
            options = options_of_tags(tags)
        except ValueError as error:
            raise JobError(f"step {step}: {error}") from None
        for name, value in options.items():
            other, known = found.setdefault(name, (step, value))
            if known != value:
                raise JobError(
                    f"step {other} asks for {name} {known} and step {step} for {value}: they share "
                    "a job, and must ask for the same"
                )
    return {name: value for name, (_, value) in found.items()}


def _text(name: str, value: object) -> str:
    option = OPTIONS[name]
    text = str(value).strip(" ")
    if len(text) <= _LONGEST_VALUE:
        if option.is_switch and text.lower() in {"true", "false"}:
            return text.lower()
        is_word = isinstance(value, str | int) and not isinstance(value, bool)
        if is_word and option.pattern and re.fullmatch(option.pattern, text):
            is_size = option.form.startswith("megabytes")
            return text.upper().removesuffix("B") if is_size else text
    raise ValueError(
        f"Slurm option {name}: {value!r} is not a value that sbatch takes; it must be "
        f"{option.form}, such as {option.example}"
    )


def _extras(content: object) -> dict[str, str]:
    if not isinstance(content, Mapping):
        raise ValueError(f"{_EXTRA} must be a mapping of Slurm options, not {content!r}")  # noqa: TRY004
    found = {}
    for name, value in content.items():
        if name in OPTIONS:
            raise ValueError(f"{_EXTRA}: set {name} as an option of its own")
        if name in REFUSED:
            raise ValueError(f"Slurm option {name} cannot be set: {REFUSED[name]}")
        if name not in EXTRA:
            raise ValueError(f"{_EXTRA}: sbatch has no option {name!r}")
        text = "true" if value is True else str(value)
        if value is False or not re.fullmatch(EXTRA_VALUE, text) or len(text) > _LONGEST_VALUE:
            raise ValueError(
                f"{_EXTRA}: {name}: {value!r} must be true, or a word of letters, digits and any "
                "of _.,:/=@+-"
            )
        found[str(name)] = text
    return found


def _json_object(name: str, text: str) -> dict[str, object]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"tag {TAG_PREFIX}{name}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"tag {TAG_PREFIX}{name}: must be a JSON object of Slurm options")  # noqa: TRY004
    return content
