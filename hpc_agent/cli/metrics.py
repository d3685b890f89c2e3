"""``hpc-agent metrics list | dashboard | alerts``."""

from __future__ import annotations

from typing import Annotated

import typer

from hpc_agent.cli.arguments import JsonOption
from hpc_agent.cli.output import print_json, print_line
from hpc_agent.cli.table import print_table

app = typer.Typer(help="Metrics for Prometheus: what there is to watch.", no_args_is_help=True)


@app.command("list")
def list_metrics(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The tables of docs/metrics.md.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the metrics of agent and gateway, with their labels."""
    from hpc_agent.metrics import page

    if json:
        print_json(page.rows())
    elif markdown:
        print_line(page.markdown())
    else:
        print_table(["metric", "kind", "labels", "about"], page.rows())


@app.command()
def dashboard() -> None:
    """Print a dashboard for Grafana: import the JSON there."""
    from hpc_agent.metrics.dashboard import dashboard

    print_line(dashboard())


@app.command()
def alerts() -> None:
    """Print alert rules for Prometheus (rule_files)."""
    from hpc_agent.metrics.page import ALERTS

    print_line(ALERTS.read_text().rstrip())
