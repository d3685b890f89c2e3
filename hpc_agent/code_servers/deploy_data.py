"""What the control plane says of how a code location is deployed (CodeLocationDeployData)."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hpc_agent.config import Environment
from hpc_agent.dagster_plus.serdes import Packed
from hpc_agent.errors import ConfigError
from hpc_agent.inbound.json_text import loads
from hpc_agent.outgoing.text import storable_json

# Field → variable of `dagster api grpc` (get_grpc_server_env of
# dagster_cloud/workspace/user_code_launcher/utils.py).
_TARGET_VARIABLES = {
    "python_file": "DAGSTER_CLI_API_GRPC_PYTHON_FILE",
    "module_name": "DAGSTER_CLI_API_GRPC_MODULE_NAME",
    "package_name": "DAGSTER_CLI_API_GRPC_PACKAGE_NAME",
    "autoload_defs_module_name": "DAGSTER_CLI_API_GRPC_AUTOLOAD_DEFS_MODULE_NAME",
    "attribute": "DAGSTER_CLI_API_GRPC_ATTRIBUTE",
    "working_directory": "DAGSTER_CLI_API_GRPC_WORKING_DIRECTORY",
    "image": "DAGSTER_CURRENT_IMAGE",
}


class DeployData(BaseModel):
    """The fields that the agent reads; all may be absent, and others be there."""

    model_config = ConfigDict(frozen=True)

    executable_path: str | None = None
    image: str | None = None
    working_directory: str | None = None
    python_file: str | None = None
    module_name: str | None = None
    package_name: str | None = None
    autoload_defs_module_name: str | None = None
    attribute: str | None = None
    container_context: Any = None
    pex_metadata: Any = None
    cloud_context_env: dict[str, str | int | float | bool | None] | None = None

    @classmethod
    def parse(cls, text: str) -> DeployData:
        """Read it. Raises ConfigError."""
        try:
            data = cls.model_validate(loads(storable_json(text)))
        except ValidationError as error:
            faults = (
                f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()
            )
            raise ConfigError(
                f"its deploy data cannot be read: {'; '.join(faults)[:2000]}"
            ) from None
        except ValueError as error:
            raise ConfigError(f"its deploy data cannot be read: {error}") from None
        for name, value in (data.context_variables() | data.target_variables()).items():
            if not name or "=" in name or "\0" in name + value:
                words = f"{name[:100]!r} can be no variable of a process"
                raise ConfigError(f"its deploy data cannot be used: {words}")
        return data

    def located(self, environment: Environment) -> DeployData:
        """Return the same with an absolute ``working_directory``. Raises ConfigError."""
        own, general = self.working_directory, environment.working_directory
        if not own or own.startswith("/"):
            return self
        if general is None:
            raise ConfigError(
                f"its working_directory {own!r} is relative, and nothing says to what: make it an "
                "absolute path on the cluster, or set environment.working_directory in agent.yaml"
            )
        return self.model_copy(update={"working_directory": str(PurePosixPath(general, own))})

    def start_directory(self, environment: Environment) -> str | None:
        """Return where the location's code server starts, and all of its runs."""
        return environment.working_directory or self.working_directory or None

    def context_variables(self) -> dict[str, str]:
        """Return what tells user code where it runs."""
        return {name: str(value) for name, value in (self.cloud_context_env or {}).items()}

    def target_variables(self) -> dict[str, str]:
        """Return what tells ``dagster api grpc`` what it is to load."""
        given = {variable: getattr(self, field) for field, variable in _TARGET_VARIABLES.items()}
        return {variable: value for variable, value in given.items() if value}


def as_told(text: str) -> Packed:
    """Return it as it came, to be told again; empty where it cannot be read."""
    try:
        content = loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
