"""What a template imports before it has workers."""

from __future__ import annotations

import importlib
import os
import sys
import time
from dataclasses import dataclass
from typing import Any, Dict, Optional

from .definitions import keep_definitions
from .rehearsal import Rehearsal

_DAGSTER = ("dagster", "dagster._cli", "dagster._cli.api")


@dataclass(frozen=True)
class Warmed:
    """How long the imports took, and what could not be prepared."""

    seconds: float
    words: str


def warm(
    code_origin: Dict[str, Any], working_directory: Optional[str], dagster_yaml: Optional[str]
) -> Warmed:
    """Import dagster and the user's code, and make its definitions. Raises whatever they raise."""
    began = time.monotonic()
    if working_directory:
        os.chdir(working_directory)
    # As `python -m` has it, and dagster expects: it takes the first for the script's directory.
    sys.path[0] = os.getcwd()
    for name in _DAGSTER:
        importlib.import_module(name)
    rehearsal = Rehearsal(dagster_yaml)
    words = keep_definitions(code_origin)
    rehearsal.import_late_modules()
    return Warmed(time.monotonic() - began, words)
