"""Slurm options: which source wins, and what is wrong with a value.

Names are those of sbatch(1) without the dashes; ``options_table`` has them all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpc_agent.errors import ConfigError
from hpc_agent.hints import did_you_mean
from hpc_agent.inbound.json_text import loads
from hpc_agent.jobs.options_table import EXTRA, EXTRA_VALUE, ONE_OF, OPTIONS, REFUSED, Option

TAG_PREFIX = "dagster-hpc/"
CONFIG_TAG = TAG_PREFIX + "config"
EXTRA_OPTION = "extra"
IMAGE_OPTION = "image"
"""No option of sbatch: a run's container image, in a tag of its own (``runs/image.py``)."""

_TRUE, _FALSE = "true", "false"
_LONGEST_NAME = 100
# Longer than any list of nodes that somebody writes; below what Python reads as a number.
_LONGEST_VALUE = 4000


@dataclass(frozen=True, slots=True)
class Source:
    """Options from one place; ``name`` is what an error message calls it.

    ``by_user``: set by who writes or launches code, not by the administrator of the agent.
    """

    name: str
    options: Mapping[str, object]
    by_user: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of one option, the source that set it, and what it has overridden, newest first.

    ``why`` says of a value that the agent has chosen itself what else there was, and why not that.
    """

    option: str
    value: str
    source: str
    overridden: tuple[Setting, ...] = ()
    why: tuple[str, ...] = ()

    @property
    def directive(self) -> str:
        """The option as sbatch takes it."""
        if self.value == _TRUE:
            return f"--{self.option}"
        if self.value == _FALSE:
            return f"--no-{self.option}"
        return f"--{self.option}={self.value}"


def merge(sources: Iterable[Source]) -> tuple[Setting, ...]:
    """Merge options, later sources over earlier ones. Raises ConfigError for a wrong one.

    Of options that exclude each other (``mem``, ``mem-per-cpu``) a later source's wins as well.
    """
    merged: dict[str, Setting] = {}
    for source in sources:
        checked = settings_of(source)
        _refuse_conflicts(checked)
        for setting in checked:
            replaced = [merged.pop(name) for name in _replaced_by(setting.option) if name in merged]
            older = tuple(each for old in replaced for each in (_bare(old), *old.overridden))
            merged[setting.option] = replace(setting, overridden=older)
    return tuple(merged[name] for name in sorted(merged) if not _is_absent(merged[name]))


def settings_of(source: Source) -> list[Setting]:
    """Return a source's options, checked; those in ``extra`` under their own names."""
    found = []
    for option, value in source.options.items():
        if option == EXTRA_OPTION:
            found += _extras(source.name, value)
        else:
            found.append(_check(source.name, option, value))
    return found


def from_tags(tags: Mapping[str, str]) -> Source:
    """Read the options in a run's tags: one tag each, over the JSON in ``dagster-hpc/config``.

    Raises ConfigError when that JSON is not an object of options.
    """
    options: dict[str, object] = {}
    if CONFIG_TAG in tags:
        options.update(_json_object(CONFIG_TAG, tags[CONFIG_TAG]))
        if IMAGE_OPTION in options:
            raise ConfigError(
                f"tag {CONFIG_TAG}: {IMAGE_OPTION} is no Slurm option; it has a tag of its own, "
                f"{TAG_PREFIX}{IMAGE_OPTION}"
            )
    for tag, value in tags.items():
        option = tag.removeprefix(TAG_PREFIX)
        if option == tag:
            continue
        if option == EXTRA_OPTION:
            options[option] = _json_object(tag, value)
        elif option in OPTIONS or option in REFUSED:
            options[option] = value
    return Source("run tags", options, by_user=True)


def to_json(settings: Sequence[Setting]) -> str:
    """Return settings as they are stored with a job."""
    return json.dumps(to_rows(settings))


def to_rows(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """Return settings as plain values: option, value, source, what was overridden, and why."""
    return [
        {
            "option": setting.option,
            "value": setting.value,
            "source": setting.source,
            "overridden": to_rows(setting.overridden),
            "why": list(setting.why),
        }
        for setting in settings
    ]


def _json_object(tag: str, text: str) -> dict[str, object]:
    try:
        content = loads(text)
    except ValueError as error:
        raise ConfigError(f"tag {tag}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"tag {tag}: must be a JSON object of Slurm options")
    return content


def _check(source: str, name: str, value: object) -> Setting:
    if name in REFUSED:
        raise ConfigError(f"{source}: Slurm option {name} cannot be set: {REFUSED[name]}")
    option = OPTIONS.get(name)
    if option is None:
        words = f"{source}: unknown Slurm option {name[:_LONGEST_NAME]!r}"
        raise ConfigError(words + _hint(name))
    return Setting(name, _text(source, option, value), source)


def _text(source: str, option: Option, value: object) -> str:
    """Return the value as sbatch takes it: sizes have a capital unit, switches true or false."""
    if isinstance(value, str | int | float) and len(str(value)) <= _LONGEST_VALUE:
        text = str(value).strip(" ")
        if option.is_switch and text.lower() in {_TRUE, _FALSE}:
            return text.lower()
        if not isinstance(value, bool) and option.pattern and re.fullmatch(option.pattern, text):
            # Older versions of sbatch know G, and not GB.
            is_size = option.form.startswith("megabytes")
            return text.upper().removesuffix("B") if is_size else text
    raise ConfigError(
        f"{source}: Slurm option {option.name}: {_shown(value)} is not a value sbatch takes; it "
        f"must be {option.form}, such as {option.example}"
    )


def _extras(source: str, content: object) -> list[Setting]:
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{source}: {EXTRA_OPTION} must be a mapping of Slurm options, not {_shown(content)}"
        )
    return [_extra(source, str(name), value) for name, value in content.items()]


def _extra(source: str, name: str, value: object) -> Setting:
    if name in OPTIONS:
        raise ConfigError(f"{source}: {EXTRA_OPTION}: set {name} as an option of its own")
    if name in REFUSED:
        return _check(source, name, value)
    if name not in EXTRA:
        words = f"{source}: {EXTRA_OPTION}: sbatch has no option {name[:_LONGEST_NAME]!r}"
        raise ConfigError(words + _hint(name))
    if value is True:
        return Setting(name, _TRUE, source)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        text = str(value)
        if len(text) <= _LONGEST_VALUE and re.fullmatch(EXTRA_VALUE, text):
            return Setting(name, text, source)
    raise ConfigError(
        f"{source}: {EXTRA_OPTION}: {name}: {_shown(value)} must be true, or a word of letters, "
        "digits and any of _.,:/=@+-"
    )


def _shown(value: object) -> str:
    return repr(value)[:_LONGEST_VALUE]


def _hint(name: str) -> str:
    plain = name[:_LONGEST_NAME].lstrip("-").replace("_", "-").lower()
    if plain in EXTRA:
        return f"; put it below {EXTRA_OPTION}: {{{plain}: …}}"
    return (
        did_you_mean(plain, [*OPTIONS, *EXTRA], most=3)
        or "; `hpc-agent options list` shows them all"
    )


def _refuse_conflicts(settings: Sequence[Setting]) -> None:
    for group in ONE_OF:
        both = [setting for setting in settings if setting.option in group]
        if len(both) > 1:
            names = " and ".join(sorted(setting.option for setting in both))
            raise ConfigError(f"{both[0].source}: {names} exclude each other; set one of them")


def _replaced_by(option: str) -> list[str]:
    group = next((group for group in ONE_OF if option in group), frozenset())
    return [option, *sorted(group - {option})]


def _is_absent(setting: Setting) -> bool:
    """``exclusive: false`` takes back what an earlier source asked for: sbatch has no word."""
    return setting.option == "exclusive" and setting.value == _FALSE


def _bare(setting: Setting) -> Setting:
    return replace(setting, overridden=())
