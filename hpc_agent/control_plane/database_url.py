"""Where the tables are: SQLite in the home, or PostgreSQL by option, environment or dagster.yaml.

A password never comes in by the command line, which everybody on the machine can read, and never
goes into a file: it is in the environment variable, in ``PGPASSWORD`` or in ``~/.pgpass``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml

from hpc_agent.errors import ConfigError

VARIABLE = "HPC_AGENT_CONTROL_PLANE_DATABASE_URL"
EXAMPLE = "postgresql://USER@HOST:5432/DATABASE"


def chosen_url(option: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the URL given by option or environment. Raises ConfigError when it cannot be used."""
    if option is None:
        url = environment.get(VARIABLE) or None
        return _checked(url, VARIABLE) if url else None
    if sa.make_url(_checked(option, "--database-url")).password is not None:
        raise ConfigError(
            f"--database-url holds a password, which others on this machine can read: put the URL "
            f"into {VARIABLE} instead, or the password into PGPASSWORD or ~/.pgpass"
        )
    return option


def url_in(dagster_yaml: Path) -> str | None:
    """Return the URL of the PostgreSQL that an instance uses, None when it uses none.

    Knows ``storage: postgres:`` as dagster/_core/storage/config.py describes it.
    """
    try:
        config = yaml.safe_load(dagster_yaml.read_text())
    except FileNotFoundError:
        return None
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {dagster_yaml}: {' '.join(str(error).split())}") from error
    storage = config.get("storage") if isinstance(config, dict) else None
    postgres = storage.get("postgres") if isinstance(storage, dict) else None
    if not isinstance(postgres, dict):
        return None
    if "postgres_url" in postgres:
        return _value(postgres["postgres_url"], dagster_yaml)
    return _assembled(postgres.get("postgres_db") or {}, dagster_yaml)


def storage_yaml(option: str | None, environment: Mapping[str, str]) -> str:
    """Return the part of a fresh dagster.yaml that says where runs and events are kept."""
    url: object = option
    if option is None:
        if not environment.get(VARIABLE):
            return ""
        url = {"env": VARIABLE}
    return "\n" + yaml.safe_dump({"storage": {"postgres": {"postgres_url": url}}})


def _checked(url: str, where: str) -> str:
    try:
        backend = sa.make_url(url).get_backend_name()
    except sa.exc.ArgumentError as error:
        raise ConfigError(f"{where} is not a URL: write {EXAMPLE}") from error
    if backend != "postgresql":
        raise ConfigError(
            f"{where} names {backend}: the control plane uses PostgreSQL ({EXAMPLE}), "
            "or SQLite when you leave it out"
        )
    return url


def _assembled(parts: Mapping[str, Any], file: Path) -> str:
    """Build a URL from ``postgres_db``, as dagster_postgres/utils.py does."""
    values = {key: _value(value, file) for key, value in parts.items() if key != "params"}
    params = parts.get("params") or {}
    try:
        return sa.URL.create(
            "postgresql", username=values["username"], password=values.get("password") or None,
            host=values["hostname"], port=int(values.get("port", "5432")),
            database=values["db_name"], query={key: str(value) for key, value in params.items()},
        ).render_as_string(hide_password=False)  # fmt: skip
    except KeyError as error:
        raise ConfigError(f"{file}: storage.postgres.postgres_db lacks {error}") from error


def _value(value: object, file: Path) -> str:
    """Resolve Dagster's ``{env: NAME}``."""
    if not isinstance(value, Mapping):
        return str(value)
    name = str(value.get("env"))
    try:
        return os.environ[name]
    except KeyError:
        raise ConfigError(
            f"{file} takes its PostgreSQL settings from the environment variable {name}, "
            "which is not set: set it to what the control plane was started with"
        ) from None
