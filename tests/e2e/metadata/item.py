"""An item that a control plane shows, and where the webserver's GraphQL has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

REPOSITORY = {"repositoryLocationName": "metadata", "repositoryName": "__repository__"}
RECENTLY_SECONDS = 3600


@dataclass(frozen=True, eq=False)
class Where:  # noqa: PLW1641 - never hashed
    """Equal to every value that passes; stands in an expected answer for what no test can know."""

    passes: Callable[[Any], bool]
    meaning: str

    def __eq__(self, other: object) -> bool:
        return self.passes(other)

    def __repr__(self) -> str:
        return f"<{self.meaning}>"


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something to find: ``pick`` takes it out of the answer's data. ``$run`` is the run's id."""

    what: str
    document: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    pick: Callable[[Any], Any]
    expected: Any


def _is_recent(value: Any) -> bool:
    seconds = float(value)
    seconds = seconds / 1000 if seconds > 1e11 else seconds
    return 0 <= datetime.now(UTC).timestamp() - seconds < RECENTLY_SECONDS


RECENT = Where(_is_recent, "a time within the last hour")
TEXT = Where(lambda value: isinstance(value, str) and value != "", "some text")


def asset(what: str, key: str, selection: str, expected: Mapping[str, Any]) -> Item:
    """An item of an asset's definition or of its latest events."""
    return Item(
        what=what,
        document=f"""query ($key: AssetKeyInput!) {{
          assetNodeOrError(assetKey: $key) {{ ... on AssetNode {{ {selection} }} }}
        }}""",
        variables={"key": {"path": key.split("/")}},
        pick=lambda data: data["assetNodeOrError"],
        expected=expected,
    )


def defined(label: str, kind: str, fields: str, expected: Mapping[str, Any]) -> Item:
    """A metadata entry of the definition of raw/orders."""
    return replace(
        asset(
            f"defined {label}",
            "raw/orders",
            _entries(kind, fields),
            {"__typename": kind, "label": label, **expected},
        ),
        pick=lambda data: labelled(data["assetNodeOrError"]["metadataEntries"], label),
    )


def produced(
    label: str, kind: str, fields: str, expected: Mapping[str, Any], *, key: str = "raw/orders"
) -> Item:
    """A metadata entry of an asset's latest materialization."""
    return replace(
        asset(
            f"produced {label}",
            key,
            f"assetMaterializations(limit: 1) {{ {_entries(kind, fields)} }}",
            {"__typename": kind, "label": label, **expected},
        ),
        pick=lambda data: labelled(
            data["assetNodeOrError"]["assetMaterializations"][0]["metadataEntries"], label
        ),
    )


def _entries(kind: str, fields: str) -> str:
    return f"metadataEntries {{ __typename label ... on {kind} {{ {fields} }} }}"


def repository(what: str, selection: str, pick: Callable[[Any], Any], expected: Any) -> Item:
    """An item of the code location's definitions."""
    return Item(
        what=what,
        document=f"""query ($repository: RepositorySelector!) {{
          repositoryOrError(repositorySelector: $repository) {{
            ... on Repository {{ {selection} }}
          }}
        }}""",
        variables={"repository": REPOSITORY},
        pick=lambda data: pick(data["repositoryOrError"]),
        expected=expected,
    )


def run(what: str, selection: str, pick: Callable[[Any], Any], expected: Any) -> Item:
    """An item of the run of the job ``sales``."""
    return Item(
        what=what,
        document=f"""query ($run: ID!) {{ runOrError(runId: $run) {{
          ... on Run {{ {selection} }} }} }}""",
        pick=lambda data: pick(data["runOrError"]),
        expected=expected,
    )


def named(items: Any, name: str) -> Any:
    """Return the item of a name; all of them where there is none, for the message."""
    return next((item for item in items if item["name"] == name), items)


def labelled(entries: Any, label: str) -> Any:
    """Return the metadata entry with a label; all labels where there is none, for the message."""
    found = {entry["label"]: entry for entry in entries}
    return found.get(label, sorted(found))


def tags_of(tags: Any, *keys: str) -> dict[str, str]:
    """Return tags as a mapping: those of the given keys, else all."""
    return {tag["key"]: tag["value"] for tag in tags if not keys or tag["key"] in keys}


COLUMN_FIELDS = "schema { columns { name type description tags { key value } } }"
COLUMNS = {
    "schema": {
        "columns": [
            {
                "name": "order_id",
                "type": "int",
                "description": "Number of the order.",
                "tags": [],
            },
            {
                "name": "price",
                "type": "float",
                "description": None,
                "tags": [{"key": "unit", "value": "euro"}],
            },
        ]
    }
}
