"""Do something for each of many items: one that fails stops no other."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from hpc_agent.errors import HpcAgentError, LeaseHeldError
from hpc_agent.journal.about import Fields, about

Item = TypeVar("Item")

log = logging.getLogger(__name__)

_NAMED = 3


def _none(_item: object) -> Fields:
    return {}


async def for_each(
    what: str,
    items: Iterable[Item],
    work: Callable[[Item], Awaitable[None]],
    *,
    name: Callable[[Item], str],
    fields: Callable[[Item], Fields] = _none,
) -> list[Item]:
    """Do the work for each item in turn, and return those that failed.

    ``fields`` are what is logged of an item. Failures with the same words are logged once, however
    many items they befall. Raises only LeaseHeldError, which ends the agent.
    """
    failed: list[Item] = []
    words: dict[str, list[str]] = {}
    for item in items:
        with about(fields(item)):
            try:
                await work(item)
            except LeaseHeldError:
                raise
            except HpcAgentError as error:
                failed.append(item)
                words.setdefault(str(error), []).append(name(item))
            except Exception as error:
                failed.append(item)
                if repr(error) not in words:
                    log.exception("%s: %s: unexpected error", what, name(item))
                words.setdefault(repr(error), []).append(name(item))
    for said, names in words.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        log.warning("%s: %s%s: %s", what, ", ".join(names[:_NAMED]), more, said)
    return failed
