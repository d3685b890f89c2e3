"""``hpc-agent config example | check``."""

from __future__ import annotations

import typer

from hpc_agent.cli.arguments import ConfigOption
from hpc_agent.cli.output import print_line

app = typer.Typer(help="The agent's configuration file.", no_args_is_help=True)


@app.command()
def example() -> None:
    """Print an agent.yaml that explains every key."""
    from hpc_agent.jobs.rendering import PACKAGED

    print_line((PACKAGED / "agent.example.yaml").read_text().rstrip())


@app.command()
def check(config: ConfigOption = None) -> None:
    """Read agent.yaml and say whether it is right."""
    from hpc_agent.config import load_config, read_token
    from hpc_agent.jobs.layers import check_layers

    settings = load_config(config)
    check_layers(settings)
    read_token(settings)
    print_line(f"agent.yaml is right: control plane {settings.control_plane.url}")
