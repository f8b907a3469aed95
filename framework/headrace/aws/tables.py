"""How DynamoDB spells a table with its indexes, and what it says of one that exists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from headrace.errors import ConfigurationError

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import (
        AttributeDefinitionTypeDef,
        CreateGlobalSecondaryIndexActionTypeDef,
        GlobalSecondaryIndexDescriptionTypeDef,
        KeySchemaElementTypeDef,
        TableDescriptionTypeDef,
    )

_TABLE_KEYS: Final = {"pk": "S HASH", "sk": "S RANGE"}


def key_schema(prefix: str) -> list[KeySchemaElementTypeDef]:
    return [
        {"AttributeName": f"{prefix}pk", "KeyType": "HASH"},
        {"AttributeName": f"{prefix}sk", "KeyType": "RANGE"},
    ]


def definitions(prefixes: Iterable[str]) -> list[AttributeDefinitionTypeDef]:
    """The key attributes of the table (`""`) and of indexes (`"<name>_"`): all of them text."""
    return [
        {"AttributeName": f"{prefix}{part}", "AttributeType": "S"}
        for prefix in prefixes
        for part in ("pk", "sk")
    ]


def index_spec(index: str) -> CreateGlobalSecondaryIndexActionTypeDef:
    """A global secondary index of keys only; its table's being on demand makes it so too."""
    return {
        "IndexName": index,
        "KeySchema": key_schema(f"{index}_"),
        "Projection": {"ProjectionType": "KEYS_ONLY"},
    }


def is_usable(table: TableDescriptionTypeDef) -> bool:
    """Whether items can be read and written."""
    return table.get("TableStatus") in ("ACTIVE", "UPDATING")


def is_settled(table: TableDescriptionTypeDef) -> bool:
    """Whether the table can be changed: no index of it is being made or deleted."""
    return table.get("TableStatus") == "ACTIVE"


def index_status(table: TableDescriptionTypeDef, index: str) -> str | None:
    """`ACTIVE`, `CREATING`, …; nothing when the table has no such index."""
    found = _indexes(table).get(index)
    return None if found is None else found.get("IndexStatus")


def require_keys(name: str, table: TableDescriptionTypeDef, indexes: Iterable[str]) -> None:
    """Raises `ConfigurationError` when the table, or one of these indexes that it has, is made
    of other keys than headrace's. DynamoDB never changes keys."""
    if (keys := _keys(table, table["KeySchema"])) != _TABLE_KEYS:
        raise ConfigurationError(
            f"The table '{name}' has the keys {keys}, headrace needs {_TABLE_KEYS}, and "
            "DynamoDB cannot change that: give the service another table, or delete this one."
        )
    there = _indexes(table)
    for index in sorted(there.keys() & set(indexes)):
        wanted = {f"{index}_{key}": kind for key, kind in _TABLE_KEYS.items()}
        if (keys := _keys(table, there[index]["KeySchema"])) != wanted:
            raise ConfigurationError(
                f"The index '{index}' of the table '{name}' has the keys {keys}, headrace needs "
                f"{wanted}, and DynamoDB cannot change that: delete the index, wait until it is "
                "gone, and provision again."
            )


def _indexes(table: TableDescriptionTypeDef) -> dict[str, GlobalSecondaryIndexDescriptionTypeDef]:
    return {found["IndexName"]: found for found in table.get("GlobalSecondaryIndexes", ())}


def _keys(
    table: TableDescriptionTypeDef, schema: Iterable[KeySchemaElementTypeDef]
) -> dict[str, str]:
    types = {
        given["AttributeName"]: given["AttributeType"] for given in table["AttributeDefinitions"]
    }
    return {
        key["AttributeName"]: f"{types[key['AttributeName']]} {key['KeyType']}" for key in schema
    }
