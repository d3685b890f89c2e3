"""Options that many commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="agent.yaml; else ./agent.yaml, ~/.config/hpc-agent/, /etc/hpc-agent/.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", help="At most this many.", min=1)]
LocationOption = Annotated[
    str | None, typer.Option("--location", "-l", help="Only of this code location.")
]
DeploymentOption = Annotated[
    str | None, typer.Option("--deployment", "-d", help="Only of this deployment.")
]
RunOption = Annotated[
    str | None, typer.Option("--run", "-r", help="Only of this run: its id, or its beginning.")
]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", help="Only since then: 90m, 12h, 2d, or 2026-03-01T14:00."),
]
WatchOption = Annotated[
    float | None,
    typer.Option(
        "--watch", "-w", help="Show it again each so many seconds, until Ctrl-C.", min=0.2
    ),
]
NameArgument = Annotated[
    str,
    typer.Argument(help="A run id (its beginning does), a job id, a key, or a code location."),
]
