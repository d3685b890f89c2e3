"""What commands print that is no record of theirs, logged once and not at each look."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable

logger = logging.getLogger(__name__)

_REMEMBERED = 256


class SaidOnce:
    """Logs each text once; of very many, those that were said long ago may be said again."""

    def __init__(self) -> None:
        self._said: OrderedDict[tuple[str, str], None] = OrderedDict()

    def noise(self, command: str, texts: Iterable[str]) -> None:
        """Log lines that were put aside: whoever prints them may do worse one day."""
        for text in texts:
            if self._is_new(command, text):
                logger.info("%s printed a line that is not Slurm's, put aside: %s", command, text)

    def unreadable(self, command: str, texts: Iterable[str]) -> None:
        """Log what could not be read: absent jobs are not believed to be absent meanwhile."""
        for text in texts:
            if self._is_new(command, text):
                logger.warning("%s printed what cannot be read: %s", command, text)

    def _is_new(self, command: str, text: str) -> bool:
        key = (command, text)
        is_new = key not in self._said
        self._said[key] = None
        self._said.move_to_end(key)
        if len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)
        return is_new
