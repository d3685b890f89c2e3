"""``hpc-agent logs``: what the processes of a job have printed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from hpc_agent.cli.arguments import ConfigOption, NameArgument
from hpc_agent.errors import UsageError
from hpc_agent.inspection.outputs import STREAMS


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(logs)


def logs(
    name: NameArgument,
    config: ConfigOption = None,
    stream: Annotated[
        list[str] | None,
        typer.Option(
            help="stdout, stderr, or job: what the job script itself printed. Else the first two.",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as it grows, until the job is over.")
    ] = False,
) -> None:
    """Print the output of a run worker or a code server."""
    from hpc_agent.cluster.cluster import files_of
    from hpc_agent.config import load_config
    from hpc_agent.inspection.outputs import printed

    streams = stream or ["stdout", "stderr"]
    if unknown := set(streams) - STREAMS.keys():
        raise UsageError(f"--stream: {unknown.pop()!r} is none of {', '.join(STREAMS)}")
    settings = load_config(config)
    with files_of(settings) as files, contextlib.suppress(KeyboardInterrupt):
        _copy(printed(settings, files, name, streams, follow=follow), with_titles=len(streams) > 1)


def _copy(pieces: Iterable[tuple[str, bytes]], *, with_titles: bool) -> None:
    """Copy to standard output as it is; a title stands where another stream goes on."""
    last, out, is_at_start = None, sys.stdout.buffer, True
    for stream, chunk in pieces:
        if with_titles and stream != last:
            out.write(f"{'' if is_at_start else chr(10)}==> {stream} <==\n".encode())
        last, is_at_start = stream, chunk.endswith(b"\n")
        out.write(chunk)
        out.flush()
