"""All items that a control plane shows of code and runs: one row an item."""

from tests.e2e.metadata.code import DEFINITIONS, LOCATION, PARTITIONS
from tests.e2e.metadata.item import REPOSITORY, Item
from tests.e2e.metadata.results import CHECKS, EVENTS, RUN

__all__ = ["ITEMS", "REPOSITORY", "Item"]

ITEMS = [*DEFINITIONS, *PARTITIONS, *LOCATION, *EVENTS, *CHECKS, *RUN]
