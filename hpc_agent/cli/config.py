"""``hpc-agent config example | check | show``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from hpc_agent.cli.arguments import ConfigOption, JsonOption
from hpc_agent.cli.output import print_json, print_line
from hpc_agent.cli.table import print_table

app = typer.Typer(help="The agent's configuration file.", no_args_is_help=True)


@app.command()
def example(
    site: Annotated[
        bool, typer.Option("--site", help="A site's profile, /etc/hpc-agent/site.yaml.")
    ] = False,
) -> None:
    """Print an agent.yaml that explains every key."""
    from hpc_agent.jobs.rendering import PACKAGED

    name = "site.example.yaml" if site else "agent.example.yaml"
    print_line((PACKAGED / name).read_text().rstrip())


@app.command()
def check(config: ConfigOption = None) -> None:
    """Read agent.yaml, look at the files that it names, and say whether it is right."""
    from hpc_agent.config.load import load_layers
    from hpc_agent.inspection.configuration import overruled_notes, require_right

    loaded = load_layers(config)
    sources = [layer.source for layer in loaded.layers.layers]
    require_right(loaded.config, source="agent.yaml")
    for note in overruled_notes(loaded):
        print_line(note)
    print_line(
        f"agent.yaml is right: control plane {loaded.config.control_plane.url} "
        f"(read: {', '.join(sources)})"
    )


@app.command()
def show(
    config: ConfigOption = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Without what is the default.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show each key's value and where it comes from; secrets are hidden."""
    from hpc_agent.config.load import load_layers
    from hpc_agent.inspection.configuration import overruled_notes, settings_of

    loaded = load_layers(config)
    settings = settings_of(loaded, with_defaults=not changed)
    if json:
        print_json([asdict(each) for each in settings])
        return
    print_table(["key", "value", "source"], [asdict(each) for each in settings])
    for note in overruled_notes(loaded):
        print_line(note)
