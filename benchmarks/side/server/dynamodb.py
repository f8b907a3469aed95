"""DynamoDB: keys that were seen, and the last items that were written."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from benchmarks.side.server.counts import Counts
from benchmarks.side.server.faults import Fault
from benchmarks.side.server.settings import Settings
from headrace.attributes import size_of

Attributes: TypeAlias = dict[str, Any]

_KEY_NAMES: Final = ("pk", "sk", "id")
"""Attributes that are keys, in whatever table they stand."""
_EFFECT: Final = "order#o-"
_ASSIGNMENT: Final = re.compile(r"([#\w]+)\s*=\s*(:\w+)")
_CONDITION: Final = "The conditional request failed"
_TRANSACTION_ACTIONS: Final = 100
_BATCH_WRITES: Final = 25
_BATCH_READS: Final = 100


class Items:
    """What stands in all tables. Of old items only that they are there is known."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._keys: set[str] = set()
        self._kept: OrderedDict[str, Attributes] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def get(self, key: str) -> Attributes | None:
        return self._kept.get(key)

    def put(self, key: str, item: Attributes) -> None:
        self._keys.add(key)
        self._kept[key] = item
        if len(self._kept) > self._keep:
            self._kept.popitem(last=False)

    def delete(self, key: str) -> None:
        self._keys.discard(key)
        self._kept.pop(key, None)


class DynamoDb:
    """The operations, by their names."""

    def __init__(self, settings: Settings, counts: Counts) -> None:
        self._counts = counts
        self._items = Items(settings.keep)
        self.operations: dict[str, Callable[[dict[str, Any]], Any]] = {
            "PutItem": lambda request: self._alone("Put", request),
            "UpdateItem": lambda request: self._alone("Update", request),
            "DeleteItem": lambda request: self._alone("Delete", request),
            "TransactWriteItems": self._transact,
            "BatchWriteItem": self._batch_write,
            "GetItem": self._get,
            "BatchGetItem": self._batch_get,
            "Query": lambda request: {"Items": [], "Count": 0, "ScannedCount": 0},
            "DescribeTable": _describe,
        }

    # --- writing ---

    def _alone(self, verb: str, request: dict[str, Any]) -> dict[str, Any]:
        reason = self._refusal(request)
        if reason is not None:
            self._counts.write_units += 1
            old = {"Item": reason["Item"]} if "Item" in reason else {}
            raise Fault("ConditionalCheckFailedException", _CONDITION, **old)
        before = self._items.get(_key(request))
        after = self._write(verb, request, times=1)
        found = {"ALL_OLD": before, "ALL_NEW": after}.get(request.get("ReturnValues", "NONE"))
        return {"Attributes": found} if found else {}

    def _transact(self, request: dict[str, Any]) -> dict[str, Any]:
        actions = [next(iter(action.items())) for action in request["TransactItems"]]
        _require(len(actions), _TRANSACTION_ACTIONS)
        reasons = [self._refusal(action) for _, action in actions]
        if any(reasons):
            self._counts.write_units += 2 * len(actions)
            raise _canceled(reasons)
        for verb, action in actions:
            self._write(verb, action, times=2)
        return {}

    def _batch_write(self, request: dict[str, Any]) -> dict[str, Any]:
        writes = [
            (name.removesuffix("Request"), {"TableName": table, **write})
            for table, requests in request["RequestItems"].items()
            for each in requests
            for name, write in each.items()
        ]
        _require(len(writes), _BATCH_WRITES)
        for verb, write in writes:
            self._write(verb, write, times=1)
        return {"UnprocessedItems": {}}

    def _refusal(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The reason why a write is refused, if it is."""
        condition = request.get("ConditionExpression")
        if condition is None:
            return None
        key = _key(request)
        if (key in self._items) != ("attribute_not_exists" in condition):
            return None
        self._counts.refused += 1
        reason = {"Code": "ConditionalCheckFailed", "Message": _CONDITION}
        old = self._items.get(key)
        if request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and old is not None:
            return {**reason, "Item": old}
        return reason

    def _write(self, verb: str, request: dict[str, Any], times: int) -> Attributes | None:
        key = _key(request)
        if verb == "ConditionCheck":
            self._counts.write_units += times
            return None
        if verb == "Delete":
            self._items.delete(key)
            self._counts.write_units += times
            return None
        item = request["Item"] if verb == "Put" else _updated(self._items.get(key), request)
        self._items.put(key, item)
        self._counts.write_units += times * _units(size_of(item), 1024)
        self._note(item)
        return item

    def _note(self, item: Attributes) -> None:
        pk = item.get("pk", {}).get("S", "")
        if pk.startswith(_EFFECT) and pk[len(_EFFECT) :].isdigit():
            self._counts.effects.note(int(pk[len(_EFFECT) :]))

    # --- reading ---

    def _get(self, request: dict[str, Any]) -> dict[str, Any]:
        item = self._read(request, request["Key"])
        return {} if item is None else {"Item": item}

    def _batch_get(self, request: dict[str, Any]) -> dict[str, Any]:
        asked = request["RequestItems"]
        _require(sum(len(each["Keys"]) for each in asked.values()), _BATCH_READS)
        found = {}
        for table, each in asked.items():
            options = {"TableName": table, "ConsistentRead": each.get("ConsistentRead", False)}
            items = (self._read(options, key) for key in each["Keys"])
            found[table] = [item for item in items if item is not None]
        return {"Responses": found, "UnprocessedKeys": {}}

    def _read(self, request: Mapping[str, Any], key: Attributes) -> Attributes | None:
        item = self._items.get(_key({"TableName": request["TableName"], "Key": key}))
        share = 1.0 if request.get("ConsistentRead") else 0.5
        self._counts.read_units += share * _units(size_of(item) if item else 0, 4096)
        return item


def _key(request: Mapping[str, Any]) -> str:
    """The table and the key of what a request writes."""
    given = request["Key"] if "Key" in request else request["Item"]
    values = [str(given[name]["S"]) for name in _KEY_NAMES if name in given]
    return "\n".join([request["TableName"], *values])


def _updated(before: Attributes | None, request: Mapping[str, Any]) -> Attributes:
    """What an item is after `SET name = :value, …`; other clauses change nothing here."""
    names = request.get("ExpressionAttributeNames", {})
    values = request.get("ExpressionAttributeValues", {})
    item = {**(before or {}), **request["Key"]}
    for name, value in _ASSIGNMENT.findall(request.get("UpdateExpression", "")):
        item[names.get(name, name)] = values[value]
    return item


def _canceled(reasons: list[dict[str, Any] | None]) -> Fault:
    told = [reason or {"Code": "None"} for reason in reasons]
    codes = ", ".join(str(reason["Code"]) for reason in told)
    return Fault(
        "TransactionCanceledException",
        f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]",
        CancellationReasons=told,
    )


def _require(count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise Fault("ValidationException", f"{count} items: one call takes 1 to {most}.")


def _units(size: int, unit: int) -> int:
    return max(1, -(-size // unit))


def _describe(request: dict[str, Any]) -> dict[str, Any]:
    name = request["TableName"]
    return {
        "Table": {
            "TableName": name,
            "TableStatus": "ACTIVE",
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
        }
    }
