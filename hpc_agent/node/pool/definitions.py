"""The user's definitions, made once in a template and found there by every worker.

Dagster makes them anew for each run, by ``reconstruct_repository_def_from_pointer``
(dagster/_core/definitions/reconstruct.py, 1.11 to 1.13): it runs a ``python_file`` again, calls
what makes definitions, and resolves the job.
"""

from __future__ import annotations

import importlib
import json
from typing import Any, Dict

_MAKE = "reconstruct_repository_def_from_pointer"


def keep_definitions(code_origin: Dict[str, Any]) -> str:
    """Make the definitions of a packed code origin, and have this process use them again.

    Return in words what could not be kept, "" where all was. Raises whatever the user's code does.
    """
    serdes = importlib.import_module("dagster._serdes")
    origin = serdes.deserialize_value(json.dumps(code_origin))
    pointer = getattr(origin, "repository_origin", origin).code_pointer
    reconstruct = importlib.import_module("dagster._core.definitions.reconstruct")
    contexts = importlib.import_module(
        "dagster._core.definitions.definitions_load_context"
    ).DefinitionsLoadContext
    make = getattr(reconstruct, _MAKE, None)
    if make is None:
        pointer.load_target()
        return "this release of dagster makes its definitions in each worker"
    repository = make(pointer)
    context = contexts.get()
    try:
        repository.get_all_jobs()
        words = ""
    except Exception as error:  # noqa: BLE001  (another job than that of a run may be broken)
        words = "not all of its jobs can be made: %s: %s" % (type(error).__name__, error)

    def find(asked: Any, repository_load_data: Any = None) -> Any:
        known = (None, repository.repository_load_data)
        if asked != pointer or repository_load_data not in known:
            return make(asked, repository_load_data)
        contexts.set(context)
        return repository

    setattr(reconstruct, _MAKE, find)
    return words
