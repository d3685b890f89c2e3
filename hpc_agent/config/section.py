"""What all sections of agent.yaml have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

OptionValue = str | int | float | bool
Options = dict[str, OptionValue | dict[str, OptionValue]]
Seconds = Annotated[float, Field(gt=0)]
ExpandedPath = Annotated[Path, AfterValidator(lambda path: path.expanduser())]


class Section(BaseModel):
    """A section: unknown keys are mistakes, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_key_means_default(cls, content: Any) -> Any:
        """``options:`` with nothing but comments below is None in YAML."""
        if isinstance(content, dict):
            return {key: value for key, value in content.items() if value is not None}
        return content
