"""Checks of rendered job scripts: bash, shellcheck and sbatch say what they think of them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hpc_agent.errors import TemplateError
from hpc_agent.jobs.rendering import ScriptValues, Templates

_DEADLINE_SECONDS = 60.0
SBATCH = "sbatch --test-only"
_EXCLUDED = "--exclude=SC1090,SC1091"  # files that a script sources are elsewhere

EXAMPLE = ScriptValues(
    key="run-0123456789abcdef0123",
    title="Dagster run 00000000-0000-0000-0000-000000000000 of example_job",
    directives=["--output=/tmp/slurm.out", "--open-mode=append", "--no-requeue"],
    exports=[("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8")],
    modules=[],
    setup=[],
    node_python="python3",
    node_program="/tmp/node.pyz",  # noqa: S108 - only shown and parsed
    job_directory="/tmp",  # noqa: S108
)
"""A job that asks for nothing."""

FULL = replace(
    EXAMPLE,
    modules=["python/3.11"],
    purge_modules=True,
    env_file="/shared/site.env",
    prefix="/shared/envs/dagster",
    is_conda=True,
    packed="/shared/envs/dagster.tar",
    setup=["ulimit -c 0"],
    teardown=["true"],
    in_bundle=True,
)
"""A job that uses each part of a template."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says of one template; ``skipped`` where its program is not here."""

    template: str
    check: str
    outcome: Literal["ok", "failed", "skipped"]
    message: str = ""


def check(
    templates: Templates,
    names: Sequence[str],
    *,
    sbatch: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Check templates with a bare and with a full job; stops at a template's first failure.

    ``sbatch`` is Slurm's command; None where there is none.
    """
    commands = {
        "bash -n": ["bash", "-n"],
        "shellcheck": ["shellcheck", "--severity=warning", "--format=gcc", _EXCLUDED, "-"],
        SBATCH: [sbatch, "--test-only"] if sbatch else [],
    }
    findings: list[Finding] = []
    for name in names:
        try:
            scripts = [templates.render(name, values) for values in (EXAMPLE, FULL)]
        except TemplateError as error:
            findings.append(Finding(name, "render", "failed", str(error)))
            continue
        findings.append(Finding(name, "render", "ok"))
        for label, argv in commands.items():
            findings.append(_ask(Finding(name, label, "ok"), argv, scripts, environment))
            if findings[-1].outcome == "failed":
                break
    return findings


def _ask(
    finding: Finding,
    argv: Sequence[str],
    scripts: Sequence[str],
    environment: Mapping[str, str] | None,
) -> Finding:
    """Hand all scripts to a command; the first complaint counts."""
    for script in scripts:
        try:
            complaint = _complaint(argv, script, environment) if argv else None
        except FileNotFoundError:
            argv = []
        if not argv:
            return replace(finding, outcome="skipped", message="the program is not here")
        if complaint is not None:
            return replace(finding, outcome="failed", message=complaint)
    return finding


def _complaint(
    argv: Sequence[str], script: str, environment: Mapping[str, str] | None
) -> str | None:
    try:
        done = subprocess.run(
            argv,
            input=script,
            text=True,
            capture_output=True,
            check=False,
            timeout=_DEADLINE_SECONDS,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {_DEADLINE_SECONDS:g} s"
    if done.returncode == 0:
        return None
    return _told(done.stderr.strip() or done.stdout.strip(), script)


def _told(text: str, script: str) -> str:
    """Return the first lines of a complaint, with the line of the script that it is about."""
    lines = text.splitlines()[:5]
    number = re.search(r"(?:line |-:)(\d+)", text)
    rendered = script.splitlines()
    if number and 0 < int(number[1]) <= len(rendered):
        lines.append(f"rendered line {number[1]}: {rendered[int(number[1]) - 1]}")
    return "\n".join(lines)
