"""One job for many steps: what covers them all, and what nothing can cover."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hpc_agent.errors import ConfigError
from hpc_agent.jobs.options import merge
from hpc_agent.jobs.step_options import covering


def covered(
    *steps: Mapping[str, str], defaults: Mapping[str, str] | None = None, decided: str = ""
) -> dict[str, tuple[object, str]]:
    """Return option → value and who decided it, for steps named a, b, …"""
    named = [
        (name, {f"dagster-hpc/{option}": value for option, value in step.items()})
        for name, step in zip("abcdef", steps, strict=False)
    ]
    sources = covering(named, defaults=defaults or {}, decided=decided.split())
    return {
        option: (value, source.name)
        for source in sources
        for option, value in source.options.items()
    }


@pytest.mark.parametrize(
    ("option", "values", "expected"),
    [
        ("mem", ["4G", "500", "3072M"], "4G"),
        ("mem", ["4G", "0"], "0"),
        ("cpus-per-task", ["2", "16", "9"], "16"),
        ("tmp", ["1G", "2000"], "2000"),
        ("time", ["10", "1:00:00", "30:00"], "1:40:00"),
        ("time", ["10", "unlimited"], "unlimited"),
        ("gres", ["gpu:1", "gpu:4"], "gpu:4"),
        ("gpus", ["a100:2", "a100:1"], "a100:2"),
        ("constraint", ["ib", "a100|h100", "ib"], "ib&(a100|h100)"),
        ("partition", ["gpu", "gpu"], "gpu"),
    ],
)
def test_most_of_what_any_step_asks_for(option: str, values: list[str], expected: str) -> None:
    """The sum of their times, the largest of all amounts, all features."""
    assert covered(*({option: value} for value in values))[option][0] == expected


def test_each_option_says_which_step_decides_it() -> None:
    """``options explain`` shows it."""
    found = covered({"mem": "1G", "time": "5"}, {"mem": "2G", "time": "5"}, {"cpus-per-task": "3"})
    assert found == {
        "mem": ("2G", "step b"),
        "time": ("0:10:00", "steps a, b"),
        "cpus-per-task": ("3", "step c"),
    }


def test_step_that_asks_for_nothing_has_the_defaults() -> None:
    """They are covered as well; where all steps ask, the defaults do not count."""
    defaults = {"mem": "8G", "time": "2:00:00", "cpus-per-task": "1"}
    asking = {"mem": "4G", "time": "30:00", "cpus-per-task": "2"}
    assert covered(asking, {}, defaults=defaults) == {"cpus-per-task": ("2", "step a")}
    assert covered(asking, defaults=defaults)["mem"] == ("4G", "step a")


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ({"partition": "gpu"}, {"partition": "cpu"}, "step a asks for partition gpu and step b"),
        ({"gres": "gpu:a100:1"}, {"gres": "gpu:h100:1"}, "step a asks for gres gpu:a100:1"),
        ({"gpus": "1"}, {"gpus": "a100:1"}, "step b for a100:1"),
        ({"mem": "1G"}, {"mem-per-cpu": "1G"}, "step a asks for mem and step b for mem-per-cpu"),
    ],
)
def test_contradiction_names_both_steps(
    one: dict[str, str], other: dict[str, str], says: str
) -> None:
    """And what to do; a tag of the run settles it."""
    with pytest.raises(ConfigError, match=r"dagster-hpc/|tag of the run") as raised:
        covered(one, other)
    assert says in str(raised.value)
    assert covered(one, other, decided=next(iter(one))) == {}


def test_wrong_value_names_its_step() -> None:
    with pytest.raises(ConfigError, match="tags of step b: Slurm option mem"):
        covered({"mem": "1G"}, {"mem": "much"})


def test_steps_of_any_number_have_a_short_name() -> None:
    found = covered(*[{"partition": "a"}] * 6)
    assert found["partition"] == ("a", "steps a, b, c and 3 more")


def test_rarer_options_of_a_step_are_taken() -> None:
    """They come in ``extra``, and have the same place among those of the job."""
    tag = '{"hint": "nomultithread", "contiguous": true}'
    sources = covering([("a", {"dagster-hpc/extra": tag})], defaults={})
    assert [each.directive for each in merge(sources)] == ["--contiguous", "--hint=nomultithread"]
