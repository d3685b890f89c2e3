"""What the work at hand is about: every line that is logged within says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

NAMES = ("request_id", "run_id", "job_id", "key", "location", "deployment", "agent_id")
"""In the order in which they are shown."""

Fields = Mapping[str, str | None]

_fields: ContextVar[Mapping[str, str]] = ContextVar("fields", default={})  # noqa: B039 - a Mapping


@contextmanager
def about(fields: Fields) -> Iterator[None]:
    """Add fields to what is known of the work; those that are None or empty say nothing.

    Tasks that are started within keep them.
    """
    token = _fields.set({**_fields.get(), **_said(fields)})
    try:
        yield
    finally:
        _fields.reset(token)


@contextmanager
def about_nothing() -> Iterator[None]:
    """Begin work of its own, such as a request: nothing of another one is said of it."""
    token = _fields.set({})
    try:
        yield
    finally:
        _fields.reset(token)


def note(fields: Fields) -> None:
    """Add fields until the end of the enclosing ``about`` or ``about_nothing``."""
    _fields.set({**_fields.get(), **_said(fields)})


def current() -> Mapping[str, str]:
    """Return the fields of the work at hand."""
    return _fields.get()


def _said(fields: Fields) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}
