"""The example is user code: imported from its own directory, as a code server does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpc_agent.demo

LOCATION = Path(hpc_agent.demo.__file__).with_name("location")


@pytest.fixture(scope="session")
def location() -> Iterator[Path]:
    """Return the example's working directory, importable meanwhile."""
    sys.path.insert(0, str(LOCATION))
    yield LOCATION
    sys.path.remove(str(LOCATION))


@pytest.fixture(autouse=True)
def data(location: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the example's data below ``tmp_path``."""
    monkeypatch.setenv("HPC_AGENT_DEMO_DATA", str(tmp_path / "data"))
    return tmp_path / "data"
