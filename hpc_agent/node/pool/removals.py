"""What imports have registered to be removed at the end of a process.

A forked worker runs at its end what its template's imports have registered, and would remove files
that its neighbours use. atexit tells nobody what it has: its functions are replaced while imports
go on. ``weakref.finalize``, which ``tempfile.TemporaryDirectory`` uses, has a private registry
(Lib/weakref.py, Python 3.4 to 3.14).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pathlib
import shutil
import sys
import weakref
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

_REMOVING = (
    shutil.rmtree,
    os.remove,
    os.unlink,
    os.rmdir,
    os.removedirs,
    pathlib.Path.unlink,
    pathlib.Path.rmdir,
)
# In the code of a function that does so itself, as TemporaryDirectory's own.
_NAMES = {"rmtree", "_rmtree", "unlink", "rmdir", "removedirs"}
# It asks whether this is the process that has registered it.
_CAREFUL = "getpid"
_LONGEST_WORDS = 200


class _Handler(NamedTuple):
    function: Callable[..., Any]
    arguments: Tuple[Any, ...]
    module: str


class RemovalWatch:
    """Sees what is registered for the end of this process while imports go on."""

    def __init__(self) -> None:
        self._before = set(_finalizers())
        self._handlers: List[_Handler] = []

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch atexit for the time of a block."""
        register, unregister = atexit.register, atexit.unregister

        def note(function: Callable[..., Any], *arguments: Any, **more: Any) -> Callable[..., Any]:
            module = sys._getframe(1).f_globals.get("__name__", "")
            self._handlers.append(_Handler(function, arguments, module))
            return register(function, *arguments, **more)

        def forget(function: Callable[..., Any]) -> None:
            self._handlers = [each for each in self._handlers if each.function != function]
            unregister(function)

        atexit.register, atexit.unregister = note, forget  # type: ignore[assignment]
        try:
            yield
        finally:
            atexit.register, atexit.unregister = register, unregister

    def found(self) -> List[str]:
        """Return in words what removes files, as far as that can be seen."""
        registered = [*self._handlers, *self._new_finalizers()]
        return [_words(each) for each in registered if removes_files(each.function)]

    def _new_finalizers(self) -> Iterator[_Handler]:
        for finalizer, info in list(_finalizers().items()):
            # Of Python 3.12; such a directory stays.
            is_kept = (info.kwargs or {}).get("delete", True) is False
            if finalizer not in self._before and info.atexit and not is_kept:
                yield _Handler(info.func, info.args, _module_with(info.weakref()))


def _finalizers() -> Dict[Any, Any]:
    found: Dict[Any, Any] = getattr(weakref.finalize, "_registry", {})
    return found


def removes_files(function: Any) -> bool:
    """Whether it is one of those that do, or Python code that names one of them."""
    function = _innermost(function)
    if any(function is each for each in _REMOVING):
        return True
    names = set(getattr(getattr(function, "__code__", None), "co_names", ()))
    return _CAREFUL not in names and bool(names & _NAMES or {"os", "remove"} <= names)


def _innermost(function: Any) -> Any:
    """Return the function of a method, and of what has been given arguments already."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__func__", function)


def _words(handler: _Handler) -> str:
    function = _innermost(handler.function)
    name = "%s.%s" % (function.__module__, getattr(function, "__qualname__", "?"))
    words = "%s(%s)" % (name, ", ".join(_paths(handler)))
    place = ", in %s" % handler.module if handler.module else ""
    return words[:_LONGEST_WORDS] + place


def _paths(handler: _Handler) -> Iterator[str]:
    """Yield what may be a path among the arguments, and that whose method it is."""
    function = handler.function
    given = list(handler.arguments)
    while isinstance(function, functools.partial):
        given = [*function.args, *given]
        function = function.func
    for each in (getattr(function, "__self__", None), *given):
        if isinstance(each, (str, pathlib.PurePath)):
            yield repr(str(each))


def _module_with(value: Any) -> str:
    """Return the module that has it as a variable, "" where none does."""
    for name, module in list(sys.modules.items()):
        with contextlib.suppress(AttributeError):  # anything may be there
            # Not getattr: a module of importlib.util.LazyLoader would be imported.
            variables = object.__getattribute__(module, "__dict__")
            if any(each is value for each in list(variables.values())):
                return name
    return ""
