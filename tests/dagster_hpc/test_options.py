"""Slurm options in code: what is taken, and what the agent reads of it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from dagster_hpc.jobs import JobError
from dagster_hpc.options import options_of, options_of_tags

from dagster_hpc import SlurmOptions
from hpc_agent.jobs.options import Source, from_tags, merge
from hpc_agent.jobs.options_table import OPTIONS

ROOT = Path(__file__).parents[2]


def test_the_table_is_the_agents() -> None:
    """`python packaging/user_options.py` writes it anew."""
    path = ROOT / "packaging" / "user_options.py"
    spec = importlib.util.spec_from_file_location("user_options", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written: str = module.TABLE.read_text()
    assert written == module.render()


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_the_agent_reads_what_is_written(name: str) -> None:
    """Each option, by the example of the table."""
    option = OPTIONS[name]
    example = True if option.is_switch and not option.pattern else option.example
    tags = SlurmOptions(**{name.replace("-", "_"): example}).tags()  # type: ignore[arg-type]
    (setting,) = merge([from_tags(tags)])
    assert options_of_tags(tags) == {name: setting.value}


def test_options_become_tags() -> None:
    """Later ones win, one that excludes another one takes its place, and the rest is ``extra``."""
    common = SlurmOptions(cpus_per_task=4, mem="8g", extra={"hint": "nomultithread"})
    assert common.tags() == {
        "dagster-hpc/cpus-per-task": "4",
        "dagster-hpc/mem": "8G",
        "dagster-hpc/extra": '{"hint": "nomultithread"}',
    }
    special = common | SlurmOptions(mem_per_cpu="2G", time="1:00:00", extra={"contiguous": True})
    assert options_of_tags(special.tags()) == {
        "cpus-per-task": "4",
        "mem-per-cpu": "2G",
        "time": "1:00:00",
        "hint": "nomultithread",
        "contiguous": "true",
    }
    assert merge([from_tags(special.tags())]) == merge(
        [
            Source(
                "run tags",
                {
                    "cpus-per-task": "4",
                    "mem-per-cpu": "2G",
                    "time": "1:00:00",
                    "extra": {"hint": "nomultithread", "contiguous": True},
                },
                by_user=True,
            )
        ]
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mem": "much"}, "'much' is not a value that sbatch takes; it must be megabytes"),
        ({"partition": "gpu; echo"}, "partition: 'gpu; echo'"),
        ({"nodes": "2\n#SBATCH --uid=0"}, "nodes"),
        ({"mem": "1G", "mem_per_cpu": "1G"}, "mem and mem-per-cpu exclude each other"),
        ({"extra": {"array": "1-3"}}, "array cannot be set"),
        ({"extra": {"mem": "1G"}}, "set mem as an option of its own"),
        ({"extra": {"hint": "a b"}}, "must be true, or a word of letters"),
        ({"extra": {"hinnt": "x"}}, "sbatch has no option 'hinnt'"),
        ({"cpus_per_task": True}, "cpus-per-task"),
    ],
)
def test_a_wrong_option_is_told_where_it_is_written(wrong: dict[str, object], words: str) -> None:
    """When the code is loaded, and not when a job would start."""
    with pytest.raises(ValueError, match=re.escape(words)):
        SlurmOptions(**wrong)  # type: ignore[arg-type]


def test_steps_that_share_a_job_must_agree() -> None:
    """Where there is no agent to find what covers them."""
    one, other = SlurmOptions(mem="1G").tags(), SlurmOptions(mem="2G", time="5").tags()
    assert options_of([("a", one), ("b", one)]) == {"mem": "1G"}
    with pytest.raises(JobError, match="step a asks for mem 1G and step b for 2G"):
        options_of([("a", one), ("b", other)])
    with pytest.raises(JobError, match="step c: tag dagster-hpc/extra: not valid JSON"):
        options_of([("c", {"dagster-hpc/extra": "{"})])
