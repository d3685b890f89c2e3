"""Slurm options: sources, precedence, and what never gets into a script."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_agent.errors import ConfigError
from hpc_agent.jobs import options
from hpc_agent.jobs.options import Source
from hpc_agent.jobs.options_table import EXTRA, OPTIONS, REFUSED, Option


def merged(*layers: dict[str, object]) -> dict[str, str]:
    """Return the directives of layers, by option."""
    sources = [Source(f"layer {number}", layer) for number, layer in enumerate(layers)]
    return {setting.option: setting.directive for setting in options.merge(sources)}


def test_later_source_wins() -> None:
    """Each setting knows where it comes from, and what it has overridden."""
    found = options.merge(
        [
            Source("agent.yaml", {"partition": "batch", "mem": "4G"}),
            Source("location", {"partition": "big"}),
            Source("run tags", {"partition": "gpu"}),
        ]
    )
    assert [(setting.directive, setting.source) for setting in found] == [
        ("--mem=4G", "agent.yaml"),
        ("--partition=gpu", "run tags"),
    ]
    assert [(old.value, old.source) for old in found[1].overridden] == [
        ("big", "location"),
        ("batch", "agent.yaml"),
    ]
    assert json.loads(options.to_json(found))[1]["overridden"][0]["value"] == "big"


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_example_of_each_option_is_right(option: Option) -> None:
    """What the table shows is what it takes; its text and its value look alike to sbatch."""
    assert option.name in merged({option.name: option.example})


def test_no_option_is_in_two_tables() -> None:
    """An option is ours, or refused, or one of the rest."""
    assert not (set(OPTIONS) & set(REFUSED) | set(OPTIONS) & EXTRA | set(REFUSED) & EXTRA)


def test_tags_of_a_run() -> None:
    """One tag for each option wins over the JSON tag; other tags are nobody's business here."""
    source = options.from_tags(
        {
            "dagster-hpc/config": json.dumps({"time": "10:00", "nodes": 2}),
            "dagster-hpc/time": "20:00",
            "dagster-hpc/extra": '{"hint": "nomultithread"}',
            "dagster-hpc/job-id": "17",
            "team": "x",
        }
    )
    assert source.options == {"time": "20:00", "nodes": 2, "extra": {"hint": "nomultithread"}}
    assert source.by_user


@pytest.mark.parametrize("tag", ["dagster-hpc/config", "dagster-hpc/extra"])
@pytest.mark.parametrize("text", ["{", "[1]", '"x"'])
def test_broken_json_tag_is_told(tag: str, text: str) -> None:
    """The message names the tag."""
    with pytest.raises(ConfigError, match=tag):
        options.from_tags({tag: text})


@pytest.mark.parametrize(
    ("layers", "directives"),
    [
        ([{"mem": "4g"}], ["--mem=4G"]),
        ([{"mem": 4000}], ["--mem=4000"]),
        ([{"mem": "8GB"}, {"tmp": "100mb"}], ["--mem=8G", "--tmp=100M"]),
        ([{"time": "UNLIMITED"}], ["--time=UNLIMITED"]),
        ([{"licenses": "matlab@server:10,ansys"}], ["--licenses=matlab@server:10,ansys"]),
        ([{"mail-user": "a@x.org,b"}], ["--mail-user=a@x.org,b"]),
        ([{"extra": {"extra": "fast=1"}}], ["--extra=fast=1"]),
        ([{"mem": "4G"}, {"mem-per-cpu": "1G"}], ["--mem-per-cpu=1G"]),
        ([{"cpus-per-task": 2}, {"cpus-per-gpu": "4"}], ["--cpus-per-gpu=4"]),
        ([{"exclusive": True}], ["--exclusive"]),
        ([{"exclusive": "user"}], ["--exclusive=user"]),
        ([{"exclusive": True}, {"exclusive": "False"}], []),
        ([{"requeue": "true"}], ["--requeue"]),
        ([{"requeue": False}], ["--no-requeue"]),
        ([{"extra": {"contiguous": True, "hint": "nomultithread"}}],
         ["--contiguous", "--hint=nomultithread"]),
        ([{"extra": {"hint": "a"}}, {"extra": {"hint": "b"}}], ["--hint=b"]),
    ],
)  # fmt: skip
def test_layers_become_directives(layers: list[dict[str, object]], directives: list[str]) -> None:
    """Switches, options that exclude each other, and the rest of sbatch's options."""
    assert list(merged(*layers).values()) == directives


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("partition", "batch\n#SBATCH --uid=0", "such as gpu"),
        ("partition", "a b", "names, separated by commas"),
        ("mem", "4G; rm -rf ~", "megabytes"),
        ("time", "$(id)", "such as 1-12:00:00"),
        ("nodes", True, "a number, or LEAST-MOST"),
        ("nodes", [1], "a number"),
        ("requeue", "maybe", "true or false"),
        ("wrap", "id", "renders the job's script"),
        ("uid", "0", "user of the agent"),
        ("output", "/tmp/x", "job directory"),
        ("hetjob", "1", "one allocation"),
        ("partitoin", "x", "did you mean partition?"),
        ("cpus_per_task", 1, "did you mean cpus-per-task"),
        ("hint", "nomultithread", "put it below extra: {hint: …}"),
        ("zzz", "1", "hpc-agent options list"),
        ("extra", "hint", "must be a mapping"),
        ("extra", {"mem": "4G"}, "set mem as an option of its own"),
        ("extra", {"output": "/tmp/x"}, "job directory"),
        ("extra", {"hnit": "x"}, "did you mean hint"),
        ("extra", {"hint": "a b"}, "must be true, or a word"),
        ("extra", {"hint\n#SBATCH": "a"}, "no option"),
    ],
)
def test_what_is_no_option_is_refused(option: str, value: object, message: str) -> None:
    """The error names its source, what is wrong, and what would be right."""
    with pytest.raises(ConfigError, match=f"^run tags: .*{re.escape(message)}"):
        options.merge([Source("run tags", {option: value})])


def test_options_that_exclude_each_other_in_one_source_are_refused() -> None:
    """sbatch would refuse them too, but would not say where they come from."""
    with pytest.raises(ConfigError, match="run tags: mem and mem-per-cpu exclude each other"):
        options.merge([Source("run tags", {"mem": "4G", "mem-per-cpu": "1G"})])


@given(option=st.sampled_from(sorted(OPTIONS)), value=st.text())
def test_no_value_can_hold_what_changes_a_script(option: str, value: str) -> None:
    """Whatever passes is one harmless word."""
    try:
        found = options.merge([Source("tags", {option: value})])
    except ConfigError:
        return
    assert not set("".join(setting.directive for setting in found)) & set(" \t\r\n\"'`$;\\#<>!{}~")


@given(name=st.sampled_from(sorted(EXTRA)), value=st.text())
def test_no_extra_value_can_either(name: str, value: str) -> None:
    """The general pattern is as narrow."""
    try:
        found = options.merge([Source("tags", {"extra": {name: value}})])
    except ConfigError:
        return
    assert not set(found[0].directive) & set(" \t\r\n\"'`$;\\#<>!{}~?|&()")


@pytest.mark.parametrize("option", ["mem", "nodes", "time", "gres", "extra"])
def test_value_that_is_absurdly_long_is_refused(option: str) -> None:
    """Python reads no number of more than 4300 digits, and says so by an error of its own."""
    value = '{"nice": "' + "9" * 5000 + '"}' if option == "extra" else "9" * 5000
    with pytest.raises(ConfigError):
        options.merge([options.from_tags({f"dagster-hpc/{option}": value})])


def test_name_of_an_option_is_not_told_in_full_length() -> None:
    """Nor looked up among all others: that takes its time."""
    tags = {"dagster-hpc/config": json.dumps({"x" * 1_000_000: 1})}
    with pytest.raises(ConfigError) as caught:
        options.merge([options.from_tags(tags)])
    assert len(str(caught.value)) < 1000
