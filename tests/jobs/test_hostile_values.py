"""Whatever names and values are made of, a script stays what it was: properties, and real Slurm."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_agent.config import Environment
from hpc_agent.errors import TemplateError
from hpc_agent.jobs.options import Setting
from hpc_agent.jobs.preparation import JobPlan, script_values
from hpc_agent.jobs.rendering import Templates
from hpc_agent.jobs.template_check import EXAMPLE
from hpc_agent.slurm import sbatch
from hpc_agent.slurm.local_script import parse_script
from tests.cluster import SlurmCluster
from tests.jobs.scripts import SPEC

LIMIT_SECONDS = 30.0
TEMPLATE = "run_worker.sbatch.j2"
PIECES = (
    " ", "'", '"', "\n", "\t", "\\", "$(touch pwned)", "`touch pwned`", "; touch pwned", "&&", "|",
    "#SBATCH --uid=0", "\n#SBATCH --partition=root\n", "${HOME}", "$0", "*", "~", "!", "%j", "%",
    "{{ 7 }}", "{% raw %}", "\\\n", "EOF", "a", "é", "\u2028", "\x1b[0m", "<", ">", "(", ")", "#",
)  # fmt: skip
hostile = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])
)
# No backslash: sbatch takes it out of --output and reads no % then (FILENAME PATTERN).
NASTIEST = "a b'c\"d; touch pwned; $(touch pwned) `touch pwned` %j {{ 7 }} é #SBATCH --nice=5"


def sbatch_words(script: str) -> list[str]:
    """Return the words of the ``#SBATCH`` lines as sbatch reads them, up to the first command."""
    words = []
    for line in script.split("\n")[1:]:
        if line.startswith("#SBATCH"):
            words += shlex.split(line.removeprefix("#SBATCH"), comments=True)
        elif line and not line.startswith("#"):
            break
    return words


@given(values=st.lists(hostile, min_size=1, max_size=4), title=hostile)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_bash_reads_the_values_that_were_meant(values: list[str], title: str) -> None:
    """Exports, modules, paths: run by a real bash, which must find them unchanged."""
    names = [f"V{number}" for number in range(len(values))]
    printer = 'printf "%s\\0" "$@"; for name; do :; done; ' + "; ".join(
        f'printf "%s\\0" "${{{name}}}"' for name in names
    )
    script = (
        Templates()
        .render(
            TEMPLATE,
            replace(
                EXAMPLE,
                title=title,
                key=title,
                exports=[*zip(names, values, strict=True), ("PRINTER", printer), ("PATH", "/bin")],
                modules=values,
                setup=["module() { :; }", 'shown() { shift; eval "$PRINTER"; }', "set -- x"],
                node_python="/bin/bash",
                node_program="-c",
                job_directory=printer.replace('"$@"', '"$0"'),
            ),
        )
        .replace("module load", "true module load")
    )
    done = subprocess.run(
        ["bash"], input=script.encode(), capture_output=True, check=True, cwd="/proc"
    )
    assert done.stdout.decode().split("\0")[1:-1] == values
    assert sbatch_words(script) == list(EXAMPLE.directives)


@given(value=hostile)
def test_sbatch_reads_the_options_that_were_meant(value: str) -> None:
    """A path with anything in it is one word of one option, or is refused."""
    directives = [f"--output={value}", "--no-requeue"]
    try:
        script = Templates().render(TEMPLATE, replace(EXAMPLE, directives=directives))
    except TemplateError:
        assert set(value) & set("\n\r\0")
        return
    assert sbatch_words(script) == directives
    assert parse_script(script).output == value


@pytest.mark.slurm
def test_nastiest_names_on_real_slurm(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    """scontrol shows the paths as they are, and nothing that they hold has run."""
    directory = tmp_path / NASTIEST
    directory.mkdir()
    node = tmp_path / "node"
    node.write_text('#!/bin/sh\nprintf "%s\\n" "$V" "$@"\n')
    node.chmod(0o755)
    plan = JobPlan(
        spec=SPEC,
        title=f"Dagster run {NASTIEST}",
        settings=[Setting("time", "1", "test")],
        environment=Environment(variables={"V": NASTIEST}, teardown=["echo over"]),
    )
    script = directory / "job.sh"
    values = script_values(plan, directory=directory, node_python=str(node))
    script.write_text(Templates().render(TEMPLATE, values))
    environment = {**os.environ, **slurm_cluster.environment}
    submitted = subprocess.run(
        sbatch.arguments(script, name="hpc-agent:run-1", comment="run-1"),
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    job_id = sbatch.parse(submitted.stdout)
    output = directory / "slurm.out"
    wait_for_line(output, "over")
    shown = subprocess.run(
        ["scontrol", "show", "job", str(job_id)],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert f"WorkDir={directory}" in shown
    assert f"Command={script}" in shown
    assert "Requeue=0" in shown
    assert "Comment=run-1" in shown
    assert output.read_text().splitlines() == [
        NASTIEST,
        str(directory / "node.pyz"),
        str(directory),
        "over",
    ]
    assert not list(tmp_path.rglob("pwned"))


def wait_for_line(path: Path, line: str) -> None:
    """Wait until a job has written a line."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        if path.exists() and line in path.read_text().splitlines():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} has no line {line!r} after {LIMIT_SECONDS:g} s")
