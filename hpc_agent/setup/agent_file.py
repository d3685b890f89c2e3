"""agent.yaml as it is written at first: short, with a word on each key."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2

from hpc_agent.config import AgentConfig, parse_config
from hpc_agent.config.yaml_text import read_value
from hpc_agent.errors import UsageError
from hpc_agent.private_files import write_private
from hpc_agent.setup.interview import Answers


def render(answers: Answers, token_file: Path) -> str:
    """Return the text of agent.yaml."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hpc_agent", "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - YAML; every value goes through `quoted`
    )
    # JSON is YAML, whatever a value holds.
    environment.filters["quoted"] = lambda value: json.dumps(value, ensure_ascii=False)
    options = {"partition": answers.partition, "account": answers.account, "qos": answers.qos}
    return environment.get_template("agent.init.yaml.j2").render(
        url=answers.url,
        deployment=answers.deployment,
        token_file=str(token_file),
        ca_bundle=answers.ca_bundle,
        work_dir=answers.work_dir,
        home=answers.home,
        is_local=answers.is_local,
        options={name: value for name, value in options.items() if value},
        python=answers.python,
    )


def parsed(text: str, *, source: str) -> AgentConfig:
    """Return the configuration that a text is. Raises ConfigError."""
    return parse_config(read_value(text), source=source)


def require_free(path: Path, *, force: bool) -> None:
    """Raise UsageError for a file that is there, unless it may be replaced."""
    if path.exists() and not force:
        raise UsageError(
            f"{path} is there already: --force replaces it, and keeps it as {_kept(path)}"
        )


def write(path: Path, text: str) -> Path | None:
    """Write the file, and return where the one before is kept, None when there was none."""
    kept = None
    if path.exists():
        kept = _kept(path)
        path.replace(kept)
    write_private(path, text, durable=True)
    return kept


def _kept(path: Path) -> Path:
    return path.with_name(f"{path.name}.bak")
