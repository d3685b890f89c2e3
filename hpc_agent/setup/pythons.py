"""Python environments of this machine in which user code could run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.releases import Pair, installed_in

_MOST = 30
_AT_ONCE = 4
_PLACES = (
    ".venv",
    "venv",
    "envs/*",
    ".virtualenvs/*",
    ".conda/envs/*",
    "miniconda3/envs/*",
    "miniforge3/envs/*",
    "mambaforge/envs/*",
    "micromamba/envs/*",
)


@dataclass(frozen=True, slots=True)
class FoundPython:
    """An interpreter that has dagster or dagster-cloud."""

    path: Path
    pair: Pair


def find_pythons(environ: Mapping[str, str] = os.environ) -> list[FoundPython]:
    """Look where environments usually are; those in which both releases fit come first. Blocks."""
    candidates = list(dict.fromkeys(_candidates(environ)))[:_MOST]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        pairs = list(pool.map(installed_in, candidates))
    found = [
        FoundPython(path, pair)
        for path, pair in zip(candidates, pairs, strict=True)
        if pair is not None and (pair.dagster or pair.dagster_cloud)
    ]
    return sorted(found, key=lambda python: not python.pair.fits)


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if environ.get(name):
            yield Path(environ[name]) / "bin/python"
    yield Path.cwd() / ".venv/bin/python"
    home = Path(environ.get("HOME", "~")).expanduser()
    for place in _PLACES:
        yield from sorted(home.glob(f"{place}/bin/python"))
    on_path = shutil.which("python3", path=environ.get("PATH"))
    if on_path is not None:
        yield Path(on_path)
