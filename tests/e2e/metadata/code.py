"""What user code says of itself: assets, partitions, jobs, automation, resources."""

from __future__ import annotations

from tests.e2e.metadata.item import (
    COLUMN_FIELDS,
    COLUMNS,
    RECENT,
    TEXT,
    Item,
    Where,
    asset,
    defined,
    named,
    repository,
    tags_of,
)

DEFINITIONS = [
    asset(
        "name and key",
        "raw/orders",
        "assetKey { path } opNames isMaterializable",
        {
            "assetKey": {"path": ["raw", "orders"]},
            "opNames": ["raw__orders"],
            "isMaterializable": True,
        },
    ),
    asset("description", "raw/orders", "description", {"description": "Orders as they come in."}),
    asset(
        "dependencies",
        "report/revenue",
        "dependencyKeys { path }",
        {"dependencyKeys": [{"path": ["raw", "orders"]}]},
    ),
    asset(
        "lineage downstream",
        "raw/orders",
        "dependedByKeys { path }",
        {
            "dependedByKeys": Where(
                lambda keys: (
                    {tuple(key["path"]) for key in keys}
                    == {("report", "revenue"), ("seen_by_daemon",), ("seen_by_user_code",)}
                ),
                "the three assets that depend on it",
            )
        },
    ),
    asset(
        "owners",
        "raw/orders",
        "owners { ... on UserAssetOwner { email } ... on TeamAssetOwner { team } }",
        {"owners": [{"email": "ada@example.org"}, {"team": "sales"}]},
    ),
    asset(
        "tags",
        "raw/orders",
        "tags { key value }",
        {
            "tags": Where(
                lambda tags: tags_of(tags, "domain", "tier") == {"domain": "sales", "tier": "gold"},
                "domain and tier",
            )
        },
    ),
    asset("group", "raw/orders", "groupName", {"groupName": "sales"}),
    asset(
        "kinds",
        "raw/orders",
        "kinds",
        {"kinds": Where(lambda kinds: set(kinds) == {"python", "csv"}, "python and csv")},
    ),
    asset("code version", "raw/orders", "opVersion", {"opVersion": "orders-7"}),
    asset(
        "required resources",
        "raw/orders",
        "requiredResources { resourceKey }",
        {"requiredResources": [{"resourceKey": "warehouse"}]},
    ),
    asset(
        "automation condition",
        "seen_by_daemon",
        "automationCondition { label expandedLabel }",
        {
            "automationCondition": {
                "label": "eager",
                "expandedLabel": Where(
                    lambda label: "any_deps_updated" in " ".join(label), "the condition in words"
                ),
            }
        },
    ),
    defined("runbook", "UrlMetadataEntry", "url", {"url": "https://wiki.example.org/orders"}),
    defined(
        "dagster/code_references",
        "CodeReferencesMetadataEntry",
        """codeReferences { __typename ... on UrlCodeReference { url urlLabel: label }
        ... on LocalFileCodeReference { filePath lineNumber } }""",
        {
            "codeReferences": [
                {
                    "__typename": "UrlCodeReference",
                    "url": "https://git.example.org/orders.py",
                    "urlLabel": "orders.py",
                },
                {
                    "__typename": "LocalFileCodeReference",
                    "filePath": "/code/orders.py",
                    "lineNumber": 12,
                },
            ]
        },
    ),
    defined("dagster/column_schema", "TableSchemaMetadataEntry", COLUMN_FIELDS, COLUMNS),
    defined("dagster/table_name", "TextMetadataEntry", "text", {"text": "shop.raw.orders"}),
]

PARTITIONS = [
    asset(
        "static partitions",
        "by_region",
        "partitionDefinition { type } partitionKeys",
        {
            "partitionDefinition": {"type": "STATIC"},
            "partitionKeys": ["north", "south", "west"],
        },
    ),
    asset(
        "daily partitions",
        "by_day",
        "partitionDefinition { type fmt } partitionKeys backfillPolicy { policyType }",
        {
            "partitionDefinition": {"type": "TIME_WINDOW", "fmt": "%Y-%m-%d"},
            "partitionKeys": [f"2026-01-{day:02}" for day in range(1, 21)],
            "backfillPolicy": None,
        },
    ),
    asset(
        "backfill policy",
        "by_day_at_once",
        "backfillPolicy { policyType }",
        {"backfillPolicy": {"policyType": "SINGLE_RUN"}},
    ),
    asset(
        "multi-partitions",
        "by_day_and_region",
        """partitionDefinition { type dimensionTypes { name type } }
        partitionKeysByDimension { name partitionKeys }""",
        {
            "partitionDefinition": {
                "type": "MULTIPARTITIONED",
                "dimensionTypes": [
                    {"name": "day", "type": "TIME_WINDOW"},
                    {"name": "region", "type": "STATIC"},
                ],
            },
            "partitionKeysByDimension": [
                {
                    "name": "day",
                    "partitionKeys": [f"2026-01-{day:02}" for day in range(1, 21)],
                },
                {"name": "region", "partitionKeys": ["north", "south", "west"]},
            ],
        },
    ),
    asset(
        "dynamic partitions",
        "by_customer",
        "partitionDefinition { type name } partitionKeys",
        {
            "partitionDefinition": {"type": "DYNAMIC", "name": "customers"},
            "partitionKeys": ["acme"],
        },
    ),
    asset(
        "state of static partitions",
        "by_region",
        """assetPartitionStatuses { ... on DefaultPartitionStatuses {
          materializedPartitions unmaterializedPartitions } }""",
        {
            "assetPartitionStatuses": {
                "materializedPartitions": ["north"],
                "unmaterializedPartitions": ["south", "west"],
            }
        },
    ),
    asset(
        "state of multi-partitions",
        "by_day_and_region",
        """assetPartitionStatuses { ... on MultiPartitionStatuses { primaryDimensionName ranges {
          primaryDimStartKey primaryDimEndKey
          secondaryDim { ... on DefaultPartitionStatuses { materializedPartitions } }
        } } }""",
        {
            "assetPartitionStatuses": {
                "primaryDimensionName": "day",
                "ranges": [
                    {
                        "primaryDimStartKey": "2026-01-02",
                        "primaryDimEndKey": "2026-01-02",
                        "secondaryDim": {"materializedPartitions": ["south"]},
                    }
                ],
            }
        },
    ),
    asset(
        "state of dynamic partitions",
        "by_customer",
        "partitionStats { numMaterialized numPartitions numFailed }",
        {"partitionStats": {"numMaterialized": 1, "numPartitions": 1, "numFailed": 0}},
    ),
    asset(
        "partition key of a materialization",
        "by_region",
        "assetMaterializations(limit: 1) { partition }",
        {"assetMaterializations": [{"partition": "north"}]},
    ),
]

LOCATION = [
    Item(
        what="configuration of a code location",
        document="""query { workspaceLocationEntryOrError(name: "metadata") {
          ... on WorkspaceLocationEntry {
            loadStatus updatedTimestamp displayMetadata { key value }
          } } }""",
        pick=lambda data: {
            **data["workspaceLocationEntryOrError"],
            "displayMetadata": tags_of(data["workspaceLocationEntryOrError"]["displayMetadata"]),
        },
        expected={
            "loadStatus": "LOADED",
            "updatedTimestamp": RECENT,
            # How the stock webserver reaches the location: the gateway's face of it.
            "displayMetadata": {"host": "localhost", "socket": TEXT},
        },
    ),
    repository(
        "versions of Dagster's libraries",
        "location { dagsterLibraryVersions { name version } }",
        lambda found: sorted(
            library["name"] for library in found["location"]["dagsterLibraryVersions"]
        ),
        Where(lambda names: "dagster" in names, "dagster among them"),
    ),
    repository(
        "resource",
        """allTopLevelResourceDetails { name description resourceType configuredValues { key value }
        configFields { name } assetKeysUsing { path } }""",
        lambda found: named(found["allTopLevelResourceDetails"], "warehouse"),
        {
            "name": "warehouse",
            "description": "Where the tables are.",
            "resourceType": "metadata_location.tables.Warehouse",
            "configuredValues": [{"key": "schema_name", "value": '"shop"'}],
            "configFields": [{"name": "port"}, {"name": "schema_name"}],
            "assetKeysUsing": [{"path": ["raw", "orders"]}],
        },
    ),
    repository(
        "groups",
        "assetGroups { groupName }",
        lambda found: sorted(group["groupName"] for group in found["assetGroups"]),
        ["partitioned", "sales", "seen_by_daemon", "seen_by_user_code"],
    ),
    repository(
        "job",
        """jobs { name description tags { key value }
        metadataEntries { label ... on TextMetadataEntry { text } } }""",
        lambda found: named(found["jobs"], "tiny"),
        {
            "name": "tiny",
            "description": "A job of one op.",
            "tags": [{"key": "team", "value": "sales"}],
            "metadataEntries": [{"label": "page", "text": "jobs"}],
        },
    ),
    repository(
        "schedule",
        """schedules {
          name cronSchedule executionTimezone description pipelineName tags { key value } }""",
        lambda found: named(found["schedules"], "next_minute"),
        {
            "name": "next_minute",
            "cronSchedule": "* * * * *",
            "executionTimezone": "Europe/Berlin",
            "description": "Once, at the next minute.",
            "pipelineName": "tiny",
            "tags": [{"key": "pace", "value": "minute"}],
        },
    ),
    repository(
        "sensors by type",
        "sensors { name sensorType minIntervalSeconds }",
        lambda found: {sensor["name"]: sensor["sensorType"] for sensor in found["sensors"]},
        {"seen_by_daemon_sensor": "AUTO_MATERIALIZE", "seen_by_user_code_sensor": "AUTOMATION"},
    ),
]
