"""What all sections of agent.yaml have in common."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

OptionValue = str | int | float | bool
Options = dict[str, OptionValue | dict[str, OptionValue]]
Seconds = Annotated[float, Field(gt=0)]


class Place(enum.Enum):
    """What has to be at a path on this machine before the agent starts."""

    FILE = "file"
    CERTIFICATES = "file with CA certificates"
    DIRECTORY = "directory"
    MADE = "directory that is there or can be made"
    WRITTEN = "file that is written to"


_Expanded = AfterValidator(lambda path: path.expanduser())
ExistingFile = Annotated[Path, _Expanded, Place.FILE]
Certificates = Annotated[Path, _Expanded, Place.CERTIFICATES]
ExistingDirectory = Annotated[Path, _Expanded, Place.DIRECTORY]
WrittenFile = Annotated[Path, _Expanded, Place.WRITTEN]
OwnDirectory = Annotated[Path, _Expanded, Place.MADE]


class Section(BaseModel):
    """A section: unknown keys are mistakes, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_key_means_default(cls, content: Any) -> Any:
        """``options:`` with nothing but comments below is None in YAML."""
        if isinstance(content, dict):
            return {
                key: value
                for key, value in content.items()
                if value is not None or cls._null_says_something(key)
            }
        return content

    @classmethod
    def _null_says_something(cls, key: object) -> bool:
        """Whether null is a value, and another one than the key has without it."""
        field = cls.model_fields.get(str(key))
        if field is None or field.default is None:
            return False
        return type(None) in get_args(field.annotation)
