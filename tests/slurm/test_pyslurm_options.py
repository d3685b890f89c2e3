"""``#SBATCH`` lines as attributes of pyslurm's description, and those that only sbatch reads."""

from __future__ import annotations

import pytest

from hpc_agent.jobs.rendering import Templates, directive
from hpc_agent.jobs.template_check import EXAMPLE
from hpc_agent.slurm.pyslurm_options import UnfitError, attributes_of


def script(*options: str) -> str:
    return "\n".join(["#!/bin/bash", "# a comment", *(f"#SBATCH {each}" for each in options), "x"])


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        ("--account=physics", "account", "physics"),
        ("--chdir=/shared/job", "working_directory", "/shared/job"),
        ("--constraint=a100&nvlink", "constraints", "a100&nvlink"),
        ("--cpus-per-task=4", "cpus_per_task", 4),
        ("--mem=4G", "memory_per_node", 4096),
        ("--mem=500", "memory_per_node", 500),
        ("--mem-per-cpu=2048K", "memory_per_cpu", 2),
        ("--no-requeue", "is_requeueable", False),
        ("--requeue", "is_requeueable", True),
        ("--nodes=1", "nodes", 1),
        ("--open-mode=append", "log_files_open_mode", "append"),
        ("--output=/shared/job/%j.out", "standard_output", "/shared/job/%j.out"),
        ("--partition=gpu,batch", "partitions", "gpu,batch"),
        ("--qos=normal", "qos", "normal"),
        ("--time=5", "time_limit", 5),
        ("--time=1-12:00:01", "time_limit", 2161),
        ("--time=unlimited", "time_limit", "UNLIMITED"),
    ],
)
def test_option_is_an_attribute(option: str, name: str, value: str | int) -> None:
    """With numbers where pyslurm takes no text."""
    assert attributes_of(script(option)) == {name: value}


@pytest.mark.parametrize("path", ["/a b/'c'/%%j", '/"x"\\y/$HOME', "/#SBATCH --hold", "/ü=ö"])
def test_quoted_values_are_read_as_the_template_quotes_them(path: str) -> None:
    """What the directive filter writes comes back."""
    line = str(directive(f"--output={path}"))
    assert attributes_of(script(line)) == {"standard_output": path}


@pytest.mark.parametrize(
    "option",
    [
        "--gres=gpu:1",  # not in the table
        "--signal=B:USR1@60",  # pyslurm knows SIGUSR1 only
        "--nodes=2",  # pyslurm would still ask for one task
        "--ntasks=4",  # and would keep them on one node
        "--mem=0",  # all memory of a node; 0 is "not set" to pyslurm
        "--mem=1K",
        "--time=0",
        "--time=soon",
        "--chdir=relative",
        "--open-mode=other",
        "--requeue=yes",
        "--cpus-per-task",
        "--cpus-per-task=²",
        "-n 1",
        "--account physics",
        "--account=physics --qos=normal",
        "--account='physics'",
        "hetjob",
        "--hold",
    ],
)
def test_what_may_mean_something_else_goes_to_sbatch(option: str) -> None:
    """One such line is enough: no option is dropped."""
    with pytest.raises(UnfitError):
        attributes_of(script("--account=physics", option))


def test_options_that_exclude_each_other_go_to_sbatch() -> None:
    """It says so itself, or takes the later one."""
    with pytest.raises(UnfitError, match="exclude"):
        attributes_of(script("--mem=1G", "--mem-per-cpu=1G"))


@pytest.mark.parametrize(
    "text", ["", "echo", "#!/bin/sh\r\n", "#!/bin/sh\n\0", "#!/bin/sh\n#PBS -l"]
)
def test_what_is_no_plain_script_goes_to_sbatch(text: str) -> None:
    """Which then says what is wrong with it."""
    with pytest.raises(UnfitError):
        attributes_of(text)


@pytest.mark.parametrize("name", Templates().files())
def test_packaged_scripts_are_for_pyslurm(name: str) -> None:
    """Else it would never be used."""
    assert attributes_of(Templates().render(name, EXAMPLE)) == {
        "standard_output": "/tmp/slurm.out",
        "log_files_open_mode": "append",
        "is_requeueable": False,
    }


def test_lines_after_the_first_command_are_no_options() -> None:
    """As for sbatch; the last of equal options wins."""
    text = "#!/bin/sh\n\n  # x\n#SBATCH --qos=a\n#SBATCH --qos=b\n\necho\n#SBATCH --hold\n"
    assert attributes_of(text) == {"qos": "b"}
