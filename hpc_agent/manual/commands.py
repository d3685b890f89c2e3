"""The pages of the commands, made from the tree that parses them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, get_args, get_origin

from hpc_agent.manual.markdown import code, fenced, table

PAGE = "commands"


class Parameter(Protocol):
    """An option or an argument, as typer keeps it."""

    @property
    def name(self) -> str | None: ...
    @property
    def opts(self) -> Sequence[str]: ...
    @property
    def secondary_opts(self) -> Sequence[str]: ...
    @property
    def param_type_name(self) -> str: ...
    @property
    def required(self) -> bool: ...
    @property
    def nargs(self) -> int: ...
    @property
    def default(self) -> Any: ...


class Command(Protocol):
    """A command, or a group of them, which then has ``commands``."""

    @property
    def name(self) -> str | None: ...
    @property
    def help(self) -> str | None: ...
    @property
    def params(self) -> Sequence[Parameter]: ...


def pages(root: Command) -> dict[str, str]:
    """Return the text of each page by its name: one for the single commands, one for each group."""
    at_top = _commands(root)
    single = {name: command for name, command in at_top.items() if not _commands(command)}
    texts = {PAGE: _page("Commands", root.help or "", _flat(single, ["hpc-agent"]))}
    for name, group in at_top.items():
        if name not in single:
            flat = _flat(_commands(group), ["hpc-agent", name])
            own = [(["hpc-agent", name], group)] if _own_parameters(group) else []
            title = f"Commands: {name}"
            texts[f"{PAGE}-{name}"] = _page(title, group.help or "", [*own, *flat])
    return texts


def _commands(command: Command) -> Mapping[str, Command]:
    found: Mapping[str, Command] = getattr(command, "commands", {})
    return {name: each for name, each in found.items() if not getattr(each, "hidden", False)}


def _flat(
    commands: Mapping[str, Command], path: Sequence[str]
) -> Iterator[tuple[list[str], Command]]:
    for name, command in commands.items():
        below = _commands(command)
        if below:
            yield from _flat(below, [*path, name])
        else:
            yield [*path, name], command


def _page(title: str, about: str, commands: Any) -> str:
    parts = [f"# {title}", about]
    for path, command in commands:
        parts += [f"## {' '.join(path)}", *_command(path, command)]
    return "\n\n".join(parts) + "\n"


def _command(path: Sequence[str], command: Command) -> Iterator[str]:
    parameters = _own_parameters(command)
    words = " ".join(filter(None, (_usage(each) for each in parameters)))
    yield fenced(f"{' '.join(path)} {words}")
    if command.help:
        yield command.help.strip()
    if parameters:
        rows = [(code(_spelled(each)), _meaning(each)) for each in parameters]
        yield table(["argument", "meaning"], rows)


def _own_parameters(command: Command) -> list[Parameter]:
    """Return arguments first, then options, without those of every command."""
    own = [each for each in command.params if "--help" not in each.opts]
    return sorted(own, key=lambda each: each.param_type_name != "argument")


def _usage(parameter: Parameter) -> str:
    if parameter.param_type_name != "argument":
        return f"{parameter.opts[0]} {_value(parameter)}" if parameter.required else ""
    name = _spelled(parameter)
    return name if parameter.required else f"[{name}]"


def _spelled(parameter: Parameter) -> str:
    name = (parameter.name or "").upper()
    if parameter.param_type_name == "argument":
        return f"{name}{'…' if parameter.nargs != 1 else ''}"
    spellings = [", ".join(parameter.opts), ", ".join(parameter.secondary_opts)]
    return f"{' / '.join(filter(None, spellings))} {_value(parameter)}".rstrip()


def _value(parameter: Parameter) -> str:
    """Return what stands for the value of an option; nothing for a switch."""
    if getattr(parameter, "is_flag", False):
        return ""
    return "|".join(_choices(parameter)) or parameter.opts[0].lstrip("-").upper()


def _choices(parameter: Parameter) -> list[str]:
    """Return the words that an option takes; typer keeps them elsewhere since it left click."""
    descriptor = getattr(parameter, "type_descriptor", None)
    annotation = getattr(descriptor, "annotation", None)
    words = getattr(getattr(parameter, "type", None), "choices", ())
    if get_origin(annotation) is Literal:
        words = get_args(annotation)
    return [str(each) for each in words]


def _meaning(parameter: Parameter) -> str:
    text = getattr(parameter, "help", None) or ""
    default = parameter.default
    shown = getattr(default, "value", default)
    if isinstance(shown, bool) or not isinstance(shown, str | int | float) or shown == "":
        return text
    return f"{text} Default: {code(str(shown))}.".strip()
