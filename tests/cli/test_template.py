"""``hpc-agent template``."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hpc_agent.cli.template import app
from hpc_agent.errors import HpcAgentError, TemplateError
from tests.cluster import SlurmCluster

RUN_WORKER = "run_worker.sbatch.j2"
needs_shellcheck = pytest.mark.skipif(
    shutil.which("shellcheck") is None, reason="shellcheck is not installed"
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a site's own directory of templates, empty as yet."""
    (tmp_path / "templates").mkdir()
    return tmp_path / "templates"


@pytest.fixture
def config(tmp_path: Path, site: Path) -> Path:
    """Return an agent.yaml with that directory."""
    return write_config(tmp_path, site, {"kind": "local"})


def write_config(directory: Path, site: Path, scheduler: dict[str, Any]) -> Path:
    path = directory / "agent.yaml"
    content = {
        "control_plane": {"url": "https://cp.example"},
        "work_dir": str(directory / "work"),
        "home": str(directory / "home"),
        "templates_dir": str(site),
        "scheduler": scheduler,
    }
    path.write_text(yaml.safe_dump(content))
    return path


def run(*arguments: str, config: Path, exit_code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments, "--config", str(config)], catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return result.output


def outcomes(config: Path, *arguments: str, exit_code: int = 0) -> dict[str, tuple[str, str]]:
    """Return what each check of the run worker's template says."""
    found = json.loads(run("check", "--json", *arguments, config=config, exit_code=exit_code))
    return {
        finding["check"]: (finding["outcome"], finding["message"])
        for finding in found
        if finding["template"] == RUN_WORKER
    }


def test_list_says_which_file_counts(config: Path, site: Path) -> None:
    """A site's file comes before the packaged one of the same name."""
    (site / RUN_WORKER).write_text('{% extends "job.sbatch.j2" %}\n')
    rows = {
        row["template"]: row["file"] for row in json.loads(run("list", "--json", config=config))
    }
    assert rows[RUN_WORKER] == str(site / RUN_WORKER)
    assert rows["code_server.sbatch.j2"].endswith("hpc_agent/templates/code_server.sbatch.j2")
    assert run("show", RUN_WORKER, config=config) == '{% extends "job.sbatch.j2" %}\n'


def test_example_shows_each_part(config: Path) -> None:
    """A person sees what a template can do before anything runs."""
    script = run("render", RUN_WORKER, "--example", config=config)
    for part in ("module purge", "module load python/3.11", "CONDA_PREFIX", "site.env", "trap "):
        assert part in script


def test_site_hides_the_base_and_extends_it(config: Path, site: Path) -> None:
    """One file changes a block in the scripts of all kinds of jobs."""
    (site / "job.sbatch.j2").write_text(
        '{% extends "packaged/job.sbatch.j2" %}\n'
        "{% block setup %}\n. /site/profile\n{{ super() }}{% endblock %}\n"
    )
    for name in (RUN_WORKER, "code_server.sbatch.j2"):
        script = run("render", name, "--example", config=config)
        assert "\n. /site/profile\nulimit -c 0\n" in script


def test_packaged_templates_pass_their_own_check(config: Path) -> None:
    """All of them, with a job that asks for nothing and with one that uses each part."""
    found = outcomes(config)
    assert found["render"][0] == found["bash -n"][0] == "ok"
    assert found["sbatch --test-only"][0] == "skipped"


@pytest.mark.parametrize(
    ("text", "check", "message"),
    [
        ("#!/bin/bash\n\n{{ partitoin }}", "render", "line 3: 'partitoin' is undefined"),
        ("#!/bin/bash\n{% if %}", "render", "line 2: "),
        ("{% extends 'nothing.j2' %}", "render", "there is no template nothing.j2"),
        ("#!/bin/bash\n{{ 1 // 0 }}", "render", "line 2: "),
        ("#!/bin/bash\nif true; then\n", "bash -n", "syntax error"),
        ("#!/bin/bash\necho (x)\n", "bash -n", "rendered line 2: echo (x)"),
    ],
)
def test_mistake_in_a_site_template_is_one_message(
    config: Path, site: Path, text: str, check: str, message: str
) -> None:
    """With file and line, and an exit code that a script can use."""
    (site / RUN_WORKER).write_text(text)
    outcome, told = outcomes(config, RUN_WORKER, exit_code=1)[check]
    assert outcome == "failed"
    assert message in told
    assert check != "render" or str(site / RUN_WORKER) in told


@needs_shellcheck
def test_shellcheck_looks_at_a_site_template(config: Path, site: Path) -> None:
    """What bash lets pass may still be wrong."""
    (site / RUN_WORKER).write_text('#!/bin/bash\ncd "/nowhere"\nrm -rf "$UNSET/"*\n')
    outcome, told = outcomes(config, exit_code=1)["shellcheck"]
    assert outcome == "failed"
    assert "cd" in told


def test_unknown_names_are_told(config: Path) -> None:
    """A template, a run, a location."""
    with pytest.raises(TemplateError, match="there are: code_server"):
        run("show", "job.sh", config=config)
    with pytest.raises(HpcAgentError, match="no agent has run"):
        run("render", RUN_WORKER, "--location", "here", config=config)
    run("render", RUN_WORKER, config=config, exit_code=2)


def test_slurm_that_does_not_answer_is_said_once(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no fault of a template, and a page of errors for each of them helps nobody."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("sbatch", "scontrol"):
        command = commands / name
        command.write_text("#!/bin/sh\nseq -f 'error: lookup %g failed' 9 >&2\nexit 1\n")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    config = write_config(tmp_path, site, {})

    found = json.loads(run("check", "--json", config=config))

    about = [each for each in found if each["check"] == "sbatch --test-only"]
    assert [(each["template"], each["outcome"]) for each in about] == [("all", "skipped")]
    assert about[0]["message"] == "Slurm does not answer: error: lookup 9 failed"


@pytest.mark.slurm
def test_sbatch_looks_at_a_site_template(
    slurm_cluster: SlurmCluster, tmp_path: Path, site: Path
) -> None:
    """Slurm itself says what it takes."""
    config = write_config(tmp_path, site, {"slurm_conf": slurm_cluster.slurm_conf})
    assert outcomes(config)["sbatch --test-only"][0] == "ok"
    (site / RUN_WORKER).write_text("#!/bin/bash\n#SBATCH --partition=nowhere\ntrue\n")
    outcome, told = outcomes(config, RUN_WORKER, exit_code=1)["sbatch --test-only"]
    assert outcome == "failed"
    assert "nowhere" in told or "partition" in told
