"""Misspelled tags are told; others' tags are left alone."""

from __future__ import annotations

import pytest

from hpc_agent.runs.tags import strange_tags


@pytest.mark.parametrize(
    ("tag", "meant"),
    [
        ("dagster-hpc/partiton", "dagster-hpc/partition"),
        ("dagster-hpc/cpus_per_task", "dagster-hpc/cpus-per-task"),
        ("dagster-hpc/on_timeout", "dagster-hpc/on-timeout"),
        ("dagster_hpc/mem", "dagster-hpc/mem"),
        ("dagster-hcp/mem", "dagster-hpc/mem"),
        ("Dagster-HPC/Time", "dagster-hpc/time"),
    ],
)
def test_misspelled_tag_is_told_with_what_was_meant(tag: str, meant: str) -> None:
    (words,) = strange_tags({tag: "x", "team": "a"})
    assert words == f"Tag {tag!r} means nothing to the agent and is ignored; did you mean {meant}?"


def test_tag_that_is_like_none_is_told_as_well() -> None:
    assert strange_tags({"dagster-hpc/zzz": ""}) == [
        "Tag 'dagster-hpc/zzz' means nothing to the agent and is ignored"
    ]
    (words,) = strange_tags({"dagster-hpc/" + "x" * 100_000: ""})
    assert len(words) < 300


@pytest.mark.parametrize(
    "tag",
    [
        "dagster-hpc/partition", "dagster-hpc/config", "dagster-hpc/extra", "dagster-hpc/image",
        "dagster-hpc/on-preempt", "dagster-hpc/job-id", "dagster-hpc/attempt", "dagster/partition",
        "dagster-k8s/config", "team/partiton", "dagster-hpc", "",
    ],
)  # fmt: skip
def test_tags_that_mean_something_or_are_others_are_not(tag: str) -> None:
    assert strange_tags({tag: ""}) == []
