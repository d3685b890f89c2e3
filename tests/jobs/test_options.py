"""Slurm options: sources, precedence, and what never gets into a script."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_agent.errors import ConfigError
from hpc_agent.jobs import options
from hpc_agent.jobs.options import Source


def test_later_source_wins() -> None:
    """Each setting knows where it comes from."""
    merged = options.merge(
        [
            Source("agent.yaml", {"partition": "batch", "mem": "4G"}),
            Source("run tags", {"partition": "gpu"}),
        ]
    )
    assert [(setting.directive, setting.source) for setting in merged] == [
        ("--mem=4G", "agent.yaml"),
        ("--partition=gpu", "run tags"),
    ]


def test_tags_of_a_run() -> None:
    """One tag for each option wins over the JSON tag; other tags are nobody's business here."""
    source = options.from_tags(
        {
            "dagster-hpc/config": json.dumps({"time": "10:00", "nodes": 2}),
            "dagster-hpc/time": "20:00",
            "dagster-hpc/job-id": "17",
            "team": "x",
        }
    )
    assert source.options == {"time": "20:00", "nodes": 2}


@pytest.mark.parametrize("text", ["{", "[1]", '"x"'])
def test_broken_config_tag_is_told(text: str) -> None:
    """The message names the tag."""
    with pytest.raises(ConfigError, match="dagster-hpc/config"):
        options.merge([options.from_tags({"dagster-hpc/config": text})])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("partition", "batch\n#SBATCH --uid=0"),
        ("partition", "a b"),
        ("mem", "4G; rm -rf ~"),
        ("time", "$(id)"),
        ("nodes", True),
        ("nodes", [1]),
        ("wrap", "id"),
        ("uid", "0"),
    ],
)
def test_what_is_no_option_is_refused(option: str, value: object) -> None:
    """An unknown option or a strange value is an error that names its source."""
    with pytest.raises(ConfigError, match="run tags"):
        options.merge([Source("run tags", {option: value})])


@given(option=st.sampled_from(sorted(options.PATTERNS)), value=st.text())
def test_no_value_can_hold_what_changes_a_script(option: str, value: str) -> None:
    """Whatever passes is one harmless word."""
    try:
        merged = options.merge([Source("tags", {option: value})])
    except ConfigError:
        return
    assert not set(merged[0].value) & set(" \t\r\n\"'`$;\\#<>!{}~?")
