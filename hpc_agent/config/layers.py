"""Where each key of the configuration comes from: site, agent.yaml, environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, ...]
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Layer:
    """Keys and values of one source; what is None counts as not set."""

    source: str
    content: Mapping[str, Any]

    def without(self, keys: Sequence[Key]) -> Layer:
        """Return the layer less these keys, and all that is below them."""
        return Layer(self.source, _without(self.content, keys))

    def has(self, key: Key) -> bool:
        """Whether it says anything of a key, or of what is below it."""
        value: Any = self.content
        for part in key:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value is not None


@dataclass(frozen=True, slots=True)
class Layers:
    """Sources of one configuration, the weakest first.

    ``enforced`` are keys that the site alone decides on; ``overruled`` says who else has set them.
    """

    layers: Sequence[Layer] = ()
    enforced: Sequence[Key] = ()
    overruled: Mapping[Key, Sequence[str]] = field(default_factory=dict)

    @property
    def content(self) -> dict[str, Any]:
        """All of it, as one mapping."""
        content: dict[str, Any] = {}
        for layer in self.layers:
            content = _over(layer.content, content)
        return content

    def source_of(self, key: Key) -> str:
        """Return which source has decided on a key, or on the section that it is missing in."""
        for layer in reversed(self.layers):
            if layer.has(key):
                return layer.source
        return DEFAULT

    def nearest_source(self, key: Key) -> str:
        """Return who has a key, else who has begun the section that it belongs into."""
        for length in range(len(key), 0, -1):
            if (source := self.source_of(key[:length])) != DEFAULT:
                return source
        return self.layers[-1].source if self.layers else DEFAULT


def enforced_layers(site: Layer, others: Sequence[Layer], enforced: Sequence[Key]) -> Layers:
    """Put a site's profile below the others, and take from these what it decides alone."""
    overruled = {
        key: found
        for key in enforced
        if (found := [layer.source for layer in others if layer.has(key)])
    }
    return Layers([site, *(layer.without(enforced) for layer in others)], enforced, overruled)


def leaves(content: Mapping[str, Any], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yield each value with its key; an empty section is a value."""
    for name, value in content.items():
        key = (*above, str(name))
        if isinstance(value, Mapping) and value:
            yield from leaves(value, key)
        else:
            yield key, value


def _over(own: Mapping[str, Any], general: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(general)
    for name, value in own.items():
        below = merged.get(name)
        if value is None:
            continue
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[name] = _over(value, below or {}) if both else value
    return merged


def _without(content: Mapping[str, Any], keys: Sequence[Key]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in content.items():
        below = [key[1:] for key in keys if key[0] == name]
        if () in below:
            continue
        kept[name] = _without(value, below) if below and isinstance(value, Mapping) else value
    return kept
