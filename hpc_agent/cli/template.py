"""``hpc-agent template list | show | render | check``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from hpc_agent.cli.arguments import ConfigOption, JsonOption
from hpc_agent.cli.output import EXIT_FAILURE, print_json, print_line
from hpc_agent.cli.table import print_table

app = typer.Typer(help="Templates of job scripts, the packaged and your own.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="As `template list` shows it.")]


@app.command("list")
def list_templates(config: ConfigOption = None, json: JsonOption = False) -> None:
    """List the job templates and the files that they come from."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.scripts import template_files

    files = template_files(load_config(config))
    rows = [{"template": name, "file": str(path)} for name, path in files.items()]
    if json:
        print_json(rows)
    else:
        print_table(["template", "file"], rows)


@app.command()
def show(name: NameArgument, config: ConfigOption = None) -> None:
    """Print a template."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.scripts import template_file

    print_line(template_file(load_config(config), name).read_text().rstrip("\n"))


@app.command()
def render(
    name: NameArgument,
    config: ConfigOption = None,
    location: Annotated[str | None, typer.Option(help="Values of its code server.")] = None,
    run: Annotated[str | None, typer.Option(help="Values of this run, by its id.")] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Values that use each part of a template.")
    ] = False,
) -> None:
    """Print a job script with the values of a code location, of a run, or of an example."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.scripts import render_for

    if sum((location is not None, run is not None, example)) != 1:
        raise typer.BadParameter("give one of --location, --run and --example")
    script = render_for(load_config(config), name, location=location, run_id=run)
    print_line(script.rstrip("\n"))


@app.command()
def check(
    name: Annotated[str | None, typer.Argument(help="Without it: all.")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Render templates and let bash, shellcheck and sbatch --test-only look at the scripts."""
    from hpc_agent.config import load_config
    from hpc_agent.inspection.scripts import check_templates

    findings = check_templates(load_config(config), name)
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table(["template", "check", "outcome", "message"], map(asdict, findings))
    if any(finding.outcome == "failed" for finding in findings):
        raise typer.Exit(EXIT_FAILURE)
