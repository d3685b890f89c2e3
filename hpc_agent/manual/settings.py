"""The page of agent.yaml: every key of the model, in the words of the packaged example."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import groupby
from typing import Any

from hpc_agent.config import AgentConfig
from hpc_agent.manual.markdown import code, table

PAGE = "agent-yaml"
REQUIRED = "required"
_KEY = re.compile(r"(?P<indent> *)(?P<name>[a-z_]+):(?: +(?P<value>.*))?")
# The same, commented out. A sentence that begins so has a single space after its first word.
_KEY_IN_COMMENT = re.compile(
    r"(?P<indent> *)# (?P<more> *)(?P<name>[a-z_]+):(?: (?:[\[{\"'].*|\S+(?:  .*)?))?"
)
_SENTENCE = re.compile(r" *# (?: +# )?(?P<text>\S.*)")
_KINDS = {"integer": "number", "number": "number", "boolean": "true or false"}
_ABOUT = """\
Made from the model that reads the file; `hpc-agent config example` prints the same words as a file
to start from, `hpc-agent config check` reads yours. `NAME` stands for a name of your own. Every key
can also be set by [an environment variable](../environment-variables.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One key: its path from the top, what it takes, and what holds without it."""

    path: str
    form: str
    default: str
    about: str


@dataclass(slots=True)
class _Example:
    """What the packaged example says of keys, by their paths."""

    about: dict[str, str] = field(default_factory=dict)
    value: dict[str, str] = field(default_factory=dict)


def pages() -> dict[str, str]:
    """Return the text of the page by its name: a section of the page for each of the file."""
    parts = ["# The keys of agent.yaml", _ABOUT]
    for name, found in groupby(settings(), key=lambda each: each.path.partition(".")[0]):
        first, *below = found
        about = (f"{each.rstrip('.')}." for each in (_takes(first), first.about) if each)
        parts += [f"## {name}", " ".join(about)]
        if below:
            rows = [
                (code(each.path.removeprefix(f"{name}.")), _takes(each), each.about)
                for each in below
            ]
            parts.append(table(["key", "value", "meaning"], rows))
    return {PAGE: "\n\n".join(parts) + "\n"}


def _takes(setting: Setting) -> str:
    """Return what a key takes, and what holds without it."""
    is_needed = setting.default == REQUIRED
    default = setting.default if is_needed else setting.default and f"default {setting.default}"
    text = "; ".join(filter(None, (setting.form, default)))
    return text[:1].upper() + text[1:]


def settings() -> list[Setting]:
    """Return all keys, in the order of the model; those of a section once."""
    schema = AgentConfig.model_json_schema()
    top = {
        str(_resolved(schema, found).get("title")): name
        for name, found in schema["properties"].items()
    }
    paths = dict(_keys(schema, schema, "", top))
    example = _read_example(paths)
    return [
        Setting(
            path=path,
            form=str(found["as"]) if "as" in found else _form(schema, found),
            default=_default(found, example.value.get(path, "")),
            about=example.about.get(path) or _described(_resolved(schema, found)),
        )
        for path, found in paths.items()
    ]


def _keys(
    schema: Mapping[str, Any], section: Mapping[str, Any], above: str, seen: dict[str, str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    required = section.get("required", [])
    for name, found in section.get("properties", {}).items():
        path = f"{above}{name}"
        needed = {**found, "needed": name in required}
        below = _resolved(schema, found)
        named = below.get("additionalProperties")
        if isinstance(named, Mapping):
            below = _resolved(schema, named)
        prefix = f"{path}.NAME." if isinstance(named, Mapping) else f"{path}."
        first = (
            seen.setdefault(str(below.get("title", path)), path) if "properties" in below else path
        )
        if first != path:
            yield (
                path,
                needed
                | {"as": f"{'names, each as' if prefix.endswith('NAME.') else 'as'} {code(first)}"},
            )
        else:
            yield path, needed
            yield from _keys(schema, below, prefix, seen)


def _resolved(schema: Mapping[str, Any], found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference, also the one of a value that may be null."""
    for each in (found, *found.get("anyOf", ())):
        if "$ref" in each:
            target: Mapping[str, Any] = schema["$defs"][each["$ref"].rpartition("/")[2]]
            return target
    return found


def _described(found: Mapping[str, Any]) -> str:
    return str(found.get("description", "")).replace("``", "`")


def _form(schema: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return what a key takes, in words."""
    if "anyOf" in found:
        forms = (_form(schema, each) for each in found["anyOf"] if each.get("type") != "null")
        return " or ".join(dict.fromkeys(forms))
    words = found.get("enum", [found["const"]] if "const" in found else [])
    if words:
        return ", ".join(code(str(each)) for each in words)
    resolved = _resolved(schema, found)
    match resolved.get("type"):
        case "array":
            return f"list of {_form(schema, resolved.get('items', {}))}"
        case "object":
            return "section" if "properties" in resolved else "names with values"
        case "string":
            return "path" if resolved.get("format") == "path" else "text"
        case kind:
            return _KINDS.get(str(kind), "any value")


def _default(found: Mapping[str, Any], shown: str) -> str:
    """Return what holds without the key; what the model reckons is taken from the example."""
    if found["needed"]:
        return REQUIRED
    value = found.get("default")
    if isinstance(value, bool | int | float | str | list):
        return code(value if isinstance(value, str) else json.dumps(value))
    return code(shown) if shown and "default" not in found and "$ref" not in found else ""


def _read_example(paths: Mapping[str, Any]) -> _Example:
    """Read the comment above each key, whether the key itself is commented out or not."""
    example = _Example()
    above: list[tuple[int, str]] = []
    said: list[str] = []
    for line in (
        files("hpc_agent").joinpath("templates/agent.example.yaml").read_text().splitlines()
    ):
        found = _KEY.fullmatch(line) or _KEY_IN_COMMENT.fullmatch(line)
        depth = len(found["indent"]) + len(found.groupdict().get("more", "")) if found else 0
        names = [name for level, name in above if level < depth]
        path = ".".join([*names, found["name"]]) if found else ""
        if found is not None and path in paths:
            above = [*(each for each in above if each[0] < depth), (depth, found["name"])]
            example.about.setdefault(path, " ".join(said))
            example.value.setdefault(path, found.groupdict().get("value") or "")
            said = []
        elif found is None and (sentence := _SENTENCE.fullmatch(line)):
            said.append(sentence["text"])
        elif not line.lstrip().startswith("#"):
            said = []
    return example
