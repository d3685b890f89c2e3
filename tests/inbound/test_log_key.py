"""No log key leads out of its directory."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.log_key import LogKey

ODD = st.text(st.sampled_from("./\\%2eEfFab\x00\n\u2215"), max_size=8) | st.text(max_size=8)


@pytest.mark.parametrize(
    "parts",
    [
        ["2f1d4c6e", "compute_logs", "hkwzqpne"],
        ["__repository__", "my_sensor", "1700000000"],
        ["my jobs", "schedule@daily", "12"],
        ["..hidden", "a..b", "50%"],
        ["Lösung"],
        ["run", "compute_logs", "x" * 1000],
    ],
    ids=lambda _: "",
)
def test_names_are_keys(parts: list[str]) -> None:
    """Those of Dagster, and what users call their things."""
    assert LogKey.parse(parts).parts == tuple(parts)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [""],
        ["run", ""],
        ["run", "..", "other"],
        ["run", "."],
        ["run", "../other"],
        ["run", "%2e%2e"],
        ["run", "%2E."],
        ["run", "..%2fother"],
        ["run", "a\\b"],
        ["run", "a\nb"],
        ["run", "a\x00b"],
        ["run", "\ud800"],
        ["x" * 201, "run"],
        ["run", "x" * 1001],
        ["run", "ö" * 101],
        ["run"] * 17,
    ],
    ids=lambda _: "",
)
def test_other_places_are_not(parts: list[str]) -> None:
    """Ways up, also in percent encoding, and names that no file has."""
    with pytest.raises(InputError, match="log key"):
        LogKey.parse(parts)


@settings(max_examples=300, deadline=None)
@given(st.lists(ODD, max_size=4))
def test_no_key_leads_up(parts: list[str]) -> None:
    """Joined to a path, with or without decoding once more, it stays below."""
    try:
        key = LogKey.parse(parts)
    except InputError:
        return
    for way in (str(key), unquote(str(key))):
        place = posixpath.normpath(posixpath.join("/logs", way))
        assert place.startswith("/logs/")
        assert place.count("/") == 1 + len(parts)
