"""What is logged, in both forms."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO

from hpc_agent.journal.formats import JsonFormatter, TextFormatter


class Lines:
    """Both forms of what is logged."""

    def __init__(self) -> None:
        self.text, self.json = StringIO(), StringIO()

    @property
    def entries(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.json.getvalue().splitlines()]


@contextmanager
def written_lines() -> Iterator[Lines]:
    """Yield what is logged within."""
    found = Lines()
    handlers = [logging.StreamHandler(found.text), logging.StreamHandler(found.json)]
    handlers[0].setFormatter(TextFormatter())
    handlers[1].setFormatter(JsonFormatter())
    logger = logging.getLogger()
    before, logger.level = logger.level, logging.INFO
    for handler in handlers:
        logger.addHandler(handler)
    yield found
    logger.level = before
    for handler in handlers:
        logger.removeHandler(handler)
