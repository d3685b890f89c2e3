"""Job scripts: what is rendered is what bash and sbatch read, whatever the names are."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_agent.errors import TemplateError
from hpc_agent.jobs.rendering import PACKAGED, ScriptValues, Templates

TEMPLATES = sorted(path.name for path in PACKAGED.glob("*.sbatch.j2"))
NASTY = "a b'c\"d; echo pwned; $(touch pwned) `id` \\ %j \n#SBATCH --uid=0\nexit 1"
VALUES = ScriptValues(
    key="run-0123456789abcdef0123",
    title="Dagster run x",
    directives=["--output=/work/a/slurm.out", "--partition=batch"],
    exports=[("PATH", "/usr/bin:/bin")],
    modules=[],
    setup=[],
    node_python="python3",
    node_program="/work/a/node.pyz",
    job_directory="/work/a",
)


def sbatch_lines(script: str) -> list[str]:
    """Return the option lines as sbatch sees them: up to the first line of commands."""
    lines = []
    for line in script.splitlines()[1:]:
        if line.startswith("#SBATCH"):
            lines.append(line)
        elif line and not line.startswith("#"):
            break
    return lines


@pytest.mark.parametrize("name", TEMPLATES)
def test_script_is_bash(name: str) -> None:
    """Every packaged template renders to a script that bash parses."""
    script = Templates().render(name, replace(VALUES, modules=["gcc/12"], setup=["ulimit -c 0"]))
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert sbatch_lines(script) == [
        "#SBATCH --output=/work/a/slurm.out",
        "#SBATCH --partition=batch",
    ]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_no_complaint(name: str) -> None:
    """What we render is shell that a careful administrator would write."""
    script = Templates().render(name, replace(VALUES, modules=["gcc/12"]))
    found = subprocess.run(
        ["shellcheck", "--severity=warning", "-"],
        input=script,
        text=True,
        capture_output=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout


def test_hostile_values_stay_values(tmp_path: Path) -> None:
    """Names with every trick in them reach the program unchanged, and run nothing."""
    program = tmp_path / "show"
    program.write_text('#!/bin/sh\nprintf "%s\\0" "$@" "$VALUE"\n')
    program.chmod(0o755)
    values = replace(
        VALUES,
        title=NASTY,
        directives=["--partition=batch"],
        exports=[("VALUE", NASTY), ("PATH", "/usr/bin:/bin")],
        node_python=str(program),
        node_program=NASTY,
        job_directory=NASTY,
    )
    script = Templates().render("run_worker.sbatch.j2", values)
    assert sbatch_lines(script) == ["#SBATCH --partition=batch"]
    shown = subprocess.run(
        ["bash"], input=script, text=True, capture_output=True, cwd=tmp_path, check=True
    )
    assert shown.stdout.split("\0") == [NASTY, NASTY, NASTY, ""]
    assert not (tmp_path / "pwned").exists()


@given(text=st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_title_is_one_comment(text: str) -> None:
    """A title cannot end its line or make an option."""
    script = Templates().render("run_worker.sbatch.j2", replace(VALUES, title=text))
    assert sbatch_lines(script) == [
        "#SBATCH --output=/work/a/slurm.out",
        "#SBATCH --partition=batch",
    ]


def test_line_break_in_an_option_is_refused() -> None:
    """The one thing that no quoting makes harmless."""
    with pytest.raises(TemplateError, match="line break"):
        Templates().render(
            "run_worker.sbatch.j2", replace(VALUES, directives=["--output=/a\n#SBATCH --uid=0"])
        )


def test_site_overrides_one_block(tmp_path: Path) -> None:
    """A site's template extends the packaged one and changes what it must."""
    (tmp_path / "run_worker.sbatch.j2").write_text(
        '{% extends "job.sbatch.j2" %}\n{% block setup %}\nsource /site/profile\n{% endblock %}\n'
    )
    script = Templates(tmp_path).render("run_worker.sbatch.j2", VALUES)
    assert "\nsource /site/profile\n" in script
    assert script.rstrip().endswith("exec python3 /work/a/node.pyz /work/a")


def test_mistake_in_a_site_template_names_it(tmp_path: Path) -> None:
    """The message says which template, and what it asks for that is not there."""
    (tmp_path / "run_worker.sbatch.j2").write_text("{{ partitoin }}")
    with pytest.raises(TemplateError, match=re.compile("run_worker.sbatch.j2.*partitoin")):
        Templates(tmp_path).render("run_worker.sbatch.j2", VALUES)
