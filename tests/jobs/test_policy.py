"""The site's policy: what users may set, and what a job may come to."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_agent.config import AgentConfig, Policy, parse_config
from hpc_agent.errors import ConfigError
from hpc_agent.jobs import options, policy
from hpc_agent.jobs.layers import check_layers, run_layers, server_layers, settle
from hpc_agent.jobs.options import Source
from hpc_agent.jobs.options_demand import Demand, seconds, size

GIBI = 1 << 30


def config(**changes: Any) -> AgentConfig:
    content = {"control_plane": {"url": "https://x"}, "work_dir": "/work"}
    return parse_config(content | changes, source="test")


def demand(**values: object) -> Demand:
    named = {name.replace("_", "-"): value for name, value in values.items()}
    return Demand(options.merge([Source("test", named)]))


def settled(rules: dict[str, Any], tags: dict[str, object], **general: object) -> dict[str, str]:
    """Return the options that a user's tags come to under rules."""
    sources = [Source("agent.yaml options", general), Source("run tags", tags, by_user=True)]
    found = policy.settle(Policy.model_validate(rules), sources)
    return {setting.option: setting.value for setting in found}


@pytest.mark.parametrize(
    ("values", "amounts"),
    [
        ({}, {"time": None, "nodes": 1, "cpus": 1, "mem": None, "gpus": 0}),
        ({"time": "90"}, {"time": 5400}),
        ({"time": 0}, {"time": math.inf}),
        ({"time": "unlimited"}, {"time": math.inf}),
        ({"time": "INFINITE"}, {"time": math.inf}),
        ({"nodes": "2-4"}, {"nodes": 4, "cpus": 4}),
        ({"ntasks": 100}, {"nodes": 100, "cpus": 100}),
        ({"ntasks": 100, "nodes": 2, "cpus_per_task": 3}, {"nodes": 2, "cpus": 300}),
        ({"nodes": 2, "ntasks_per_node": 8, "cpus_per_task": 2}, {"cpus": 32}),
        ({"nodelist": "a,n[01-04,7],r[1-2]c[1-3]"}, {"nodes": 12}),
        ({"exclusive": True}, {"cpus": math.inf}),
        ({"exclusive": "user"}, {"cpus": 1}),
        ({"mem": "4G", "nodes": 2}, {"mem": 8 * GIBI}),
        ({"mem": 1024}, {"mem": GIBI}),
        ({"mem": "8GB"}, {"mem": 8 * GIBI}),
        ({"mem": "1048576kb"}, {"mem": GIBI}),
        ({"mem": 0}, {"mem": math.inf}),
        ({"mem_per_cpu": "1G", "cpus_per_task": 6}, {"mem": 6 * GIBI}),
        ({"mem_per_gpu": "2G", "gpus": 3}, {"mem": 6 * GIBI}),
        ({"gpus": "a100:2,v100:1"}, {"gpus": 3}),
        ({"gpus": 2, "cpus_per_gpu": 16}, {"gpus": 2, "cpus": 32}),
        ({"gpus_per_node": 4, "nodes": 3}, {"gpus": 12}),
        ({"gpus_per_task": "1", "ntasks": 5}, {"gpus": 5}),
        ({"gres": "gpu:a100:2,fs:1", "nodes": 2}, {"gpus": 4}),
        ({"gres": "gpu"}, {"gpus": 1}),
        ({"gres": "gpu:1g.5gb"}, {"gpus": 1}),
        ({"gres": "gres/gpu:3"}, {"gpus": 3}),
    ],
)
def test_options_come_to_amounts(values: dict[str, object], amounts: dict[str, float]) -> None:
    """The most that sbatch's manual lets a job have."""
    job = demand(**values)
    found = {name: getattr(job, name)() for name in amounts}
    assert {name: amount and amount.value for name, amount in found.items()} == amounts


@pytest.mark.parametrize(
    ("rules", "tags", "message"),
    [
        ({"allow": ["time"]}, {"mem": "1G"}, "run tags may not set mem (policy.allow)"),
        ({"forbid": ["nodelist"]}, {"nodelist": "n1"}, "may not set nodelist (policy.forbid)"),
        ({}, {"extra": {"hint": "a"}}, "may not set extra option hint (policy.extra)"),
        ({"partitions": ["a"]}, {"partition": "a,b"}, "partition b (run tags) is not open"),
        ({"accounts": []}, {"account": "x"}, "(policy.accounts); allowed are: none"),
        ({"qos": ["normal"]}, {"qos": "high"}, "qos high (run tags)"),
        (
            {"max": {"time": "1-00:00:00"}},
            {"time": "1-00:00:01"},
            "time is 1-00:00:01 (time=1-00:00:01 by run tags); at most 1-00:00:00 is allowed "
            "(policy.max.time)",
        ),
        ({"max": {"time": 60}}, {"time": 0}, "time is without limit"),
        ({"max": {"nodes": 4}}, {"nodes": "2-5"}, "nodes is 5"),
        ({"max": {"cpus": 8}}, {"exclusive": True}, "cpus is all of a node"),
        ({"max": {"mem": "4G"}}, {"mem": "4097M"}, "mem is 4.00098G"),
        ({"max": {"mem": "4G"}}, {"mem": "5GB"}, "mem is 5G"),
        ({"max": {"mem": "4G"}}, {"mem": "5000MB"}, "at most 4G is allowed"),
        ({"max": {"time": "60"}}, {"time": "UNLIMITED"}, "time is without limit"),
        ({"max": {"mem": "4G"}}, {"mem": 0}, "mem is all of a node"),
        ({"max": {"gpus": 0}}, {"gres": "gpu"}, "gpus is 1 (gres=gpu by run tags)"),
        ({"max": {"gpus": 4}}, {"gpus-per-socket": 1}, "gpus has bounds"),
        ({"max": {"gpus": 4}}, {"gres": "gpu:1K"}, "cannot be known"),
        ({"max": {"nodes": 4}}, {"nodelist": "n[1-x]"}, "cannot be known: not a list of nodes"),
        ({"min": {"time": "5"}}, {"time": "1"}, "at least 5 is required (policy.min.time)"),
    ],
)
def test_what_breaks_a_rule_is_refused(
    rules: dict[str, Any], tags: dict[str, object], message: str
) -> None:
    """The error says which rule, which option, who set it, and what is allowed."""
    with pytest.raises(ConfigError, match="site's policy.*" + re.escape(message)):
        settled(rules, tags)


def test_all_broken_rules_are_told_at_once() -> None:
    """Nobody mends a run one tag at a time."""
    with pytest.raises(ConfigError, match=r"policy\.max\.time.*policy\.max\.nodes"):
        settled({"max": {"time": 1, "nodes": 1}}, {"time": 5, "nodes": 2})


def test_rules_about_users_leave_the_administrator_alone() -> None:
    """agent.yaml may set what run tags may not; bounds hold for both."""
    assert settled({"allow": [], "extra": []}, {}, mem="1G", extra={"hint": "x"}) == {
        "mem": "1G",
        "hint": "x",
    }
    with pytest.raises(ConfigError, match=r"by agent\.yaml options"):
        settled({"max": {"mem": "1G"}}, {}, mem="2G")


def test_forced_options_win_over_all_others() -> None:
    """Whatever a run asks for."""
    assert settled({"force": {"account": "a"}}, {"account": "b"})["account"] == "a"


def test_what_the_extra_rule_names_may_be_set() -> None:
    """The rarer options are closed until they are opened one by one."""
    assert settled({"extra": ["hint"]}, {"extra": {"hint": "x"}}) == {"hint": "x"}


def test_layers_from_the_cluster_to_the_run() -> None:
    """Each more special place wins; explain shows the same."""
    settings = config(
        options={"partition": "a", "time": 1, "mem": "1G", "nice": 0, "qos": "q"},
        deployments={"prod": {"options": {"time": 2, "mem": "2G", "nice": 2}}},
        branch_deployments={"options": {"partition": "debug"}},
        runs={"options": {"mem": "3G", "nice": 3}},
        code_servers={"options": {"mem": "5G"}},
        locations={
            "here": {"run_options": {"nice": 4}, "code_server_options": {"partition": "service"}}
        },
    )
    layers = run_layers(
        settings, deployment="prod", location="here", tags={"dagster-hpc/qos": "tag"}
    )
    assert {s.option: (s.value, s.source) for s in options.merge(layers)} == {
        "partition": ("a", "agent.yaml options"),
        "time": ("2", "agent.yaml deployments.prod.options"),
        "mem": ("3G", "agent.yaml runs.options"),
        "nice": ("4", "agent.yaml locations.here.run_options"),
        "qos": ("tag", "run tags"),
    }
    branch = run_layers(settings, deployment="pr-7", location=None, tags={})
    assert {s.option: s.value for s in options.merge(branch)}["partition"] == "debug"
    server = options.merge(server_layers(settings, deployment="prod", location="here"))
    assert {s.option: s.value for s in server}.items() >= {
        "partition": "service",
        "mem": "5G",
    }.items()


def test_branch_deployments_have_rules_of_their_own() -> None:
    """Tighter bounds, another partition; what they do not say is as everywhere."""
    settings = config(
        policy={
            "max": {"time": "1-00:00:00", "nodes": 4},
            "qos": ["normal"],
            "deployments": {"prod": {"qos": ["high"]}},
            "branch_deployments": {"max": {"time": 60}, "force": {"partition": "debug"}},
        }
    )
    rules = settings.policy.rules_of("pr-7", is_branch=True)
    assert (rules.max.time, rules.max.nodes, rules.qos) == (60, 4, ["normal"])
    assert settings.policy.rules_of("prod", is_branch=False).qos == ["high"]
    forced = settle(settings, [Source("run tags", {"time": 60}, by_user=True)], deployment="pr-7")
    assert {s.option: s.value for s in forced} == {"partition": "debug", "time": "60"}
    with pytest.raises(ConfigError, match=r"policy\.max\.time"):
        settle(settings, [Source("run tags", {"time": 61}, by_user=True)], deployment="pr-7")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": {"allow": ["partitoin"]}}, "policy.allow: no such option: partitoin"),
        ({"policy": {"branch_deployments": {"extra": ["mem"]}}}, "policy.extra"),
        ({"policy": {"force": {"mem": "x"}}}, "policy.force: Slurm option mem"),
        ({"options": {"output": "x"}}, "agent.yaml options: Slurm option output"),
        ({"deployments": {"prod": {"options": {"tim": 1}}}}, "deployments.prod.options"),
        ({"locations": {"a": {"run_options": {"nodes": "x"}}}}, "locations.a.run_options"),
    ],
)
def test_wrong_options_in_agent_yaml_are_found(changes: dict[str, Any], message: str) -> None:
    """`config check` finds them before the first run does."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_layers(config(**changes))


@given(
    days=st.integers(0, 99),
    hours=st.integers(0, 23),
    minutes=st.integers(0, 59),
    rest=st.integers(0, 59),
)
def test_times_are_read_as_sbatch_does(days: int, hours: int, minutes: int, rest: int) -> None:
    """All six forms of sbatch(1); none and zero are without limit."""
    of_day = hours * 3600 + minutes * 60
    for text, expected in (
        (f"{days}-{hours}:{minutes}:{rest}", days * 86400 + of_day + rest),
        (f"{days}-{hours:02}:{minutes:02}", days * 86400 + of_day),
        (f"{days}-{hours}", days * 86400 + hours * 3600),
        (f"{hours}:{minutes}:{rest}", of_day + rest),
        (f"{minutes}:{rest}", minutes * 60 + rest),
        (f"{minutes}", minutes * 60),
    ):
        assert seconds(text) == (expected or math.inf)


@given(number=st.integers(0, 10**6), unit=st.sampled_from(["", "K", "m", "G", "t"]))
def test_sizes_are_read_as_sbatch_does(number: int, unit: str) -> None:
    """Without a unit they are megabytes."""
    factor = {"": 20, "k": 10, "m": 20, "g": 30, "t": 40}[unit.lower()]
    assert size(f"{number}{unit}") == number << factor


@given(bound=st.integers(1, 10**6), asked=st.integers(1, 10**6))
def test_a_bound_lets_through_exactly_what_is_within(bound: int, asked: int) -> None:
    """To the megabyte and the minute."""
    rules = {"max": {"mem": f"{bound}M", "time": bound}}
    try:
        settled(rules, {"mem": asked, "time": asked})
    except ConfigError:
        assert asked > bound
    else:
        assert asked <= bound
