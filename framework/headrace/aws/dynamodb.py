"""The store on DynamoDB."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from headrace.aws.config import AwsConfig, place
from headrace.aws.faults import translated
from headrace.errors import Refused, Throttled
from headrace.ports import (
    Action,
    Check,
    Condition,
    Delete,
    Item,
    ItemKey,
    Page,
    Put,
    Randomness,
    Update,
)

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import (
        KeysAndAttributesTypeDef,
        TransactWriteItemTypeDef,
        WriteRequestTypeDef,
    )

_READS: Final = 6
"""Calls for one `get` before it gives up; the waits between add up to 1.6 s at most."""
_FIRST_WAIT: Final = 0.05


class DynamoDbStore:
    """`headrace.ports.Store` on DynamoDB.

    One method is one call, but for keys that `BatchGetItem` left unprocessed: those are asked
    for again, after a wait that doubles, with full jitter.
    """

    def __init__(self, client: DynamoDBClient, config: AwsConfig, randomness: Randomness) -> None:
        self._client = client
        self._config = config
        self._randomness = randomness
        self._place = place(client)

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        resource = self._resource(key.table for key in keys)
        wanted = self._keys_by_table(keys)
        found: dict[ItemKey, Item] = {}
        for attempt in range(_READS):
            if attempt:
                limit = _FIRST_WAIT * 2 ** (attempt - 1)
                await asyncio.sleep(self._randomness.uniform(0, limit))
            with translated("BatchGetItem", resource, self._place):
                answer = await self._client.batch_get_item(RequestItems=wanted)
            for table, items in answer["Responses"].items():
                logical = self._config.logical(table)
                found |= {_key_of(logical, cast(Item, item)): cast(Item, item) for item in items}
            wanted = cast("dict[str, KeysAndAttributesTypeDef]", answer.get("UnprocessedKeys"))
            if not wanted:
                return [found.get(key) for key in keys]
        raise Throttled(
            f"BatchGetItem on the {resource} in {self._place} left keys unprocessed "
            f"{_READS} times. Try again later, or raise the limit.",
            operation="BatchGetItem",
            code="UnprocessedKeys",
        )

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        resource = self._resource(_table(action) for action in actions)
        with translated("TransactWriteItems", resource, self._place):
            await self._client.transact_write_items(
                TransactItems=[self._transact_item(action) for action in actions],
                ClientRequestToken=token,
            )

    async def change(self, action: Put | Update | Delete) -> None:
        operation, call = self._change(action)
        request = self._request(action, operation)
        with translated(operation, self._resource([_table(action)]), self._place):
            await call(**request)

    def _change(self, action: Put | Update | Delete) -> tuple[str, Callable[..., Awaitable[Any]]]:
        if isinstance(action, Put):
            return "PutItem", self._client.put_item
        if isinstance(action, Update):
            return "UpdateItem", self._client.update_item
        return "DeleteItem", self._client.delete_item

    async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
        requests: dict[str, list[WriteRequestTypeDef]] = {}
        for action in actions:
            table = self._config.physical(_table(action))
            requests.setdefault(table, []).append(_write_request(action))
        with translated("BatchWriteItem", self._resource(map(_table, actions)), self._place):
            answer = await self._client.batch_write_item(RequestItems=requests)
        left = {
            _key_of(self._config.logical(table), _written(cast(Mapping[str, Any], request)))
            for table, unprocessed in answer.get("UnprocessedItems", {}).items()
            for request in unprocessed
        }
        return [index for index, action in enumerate(actions) if action.key in left]

    async def query(
        self,
        table: str,
        pk: str,
        *,
        sk_prefix: str = "",
        sk_before: str | None = None,
        index: str | None = None,
        limit: int | None = None,
        start: Item | None = None,
        forward: bool = True,
        consistent: bool = False,
    ) -> Page:
        options: dict[str, Any] = {}
        if index is not None:
            options["IndexName"] = index
        if limit is not None:
            options["Limit"] = limit
        if start is not None:
            options["ExclusiveStartKey"] = start
        with translated("Query", self._resource([table]), self._place):
            answer = await self._client.query(
                TableName=self._config.physical(table),
                ScanIndexForward=forward,
                ConsistentRead=consistent,
                **_key_condition(index, pk, sk_prefix, sk_before),
                **options,
            )
        return Page(
            items=cast(list[Item], answer["Items"]),
            next=cast("Item | None", answer.get("LastEvaluatedKey") or None),
        )

    def _keys_by_table(self, keys: Sequence[ItemKey]) -> dict[str, KeysAndAttributesTypeDef]:
        grouped: dict[str, list[Item]] = {}
        for key in keys:
            grouped.setdefault(self._config.physical(key.table), []).append(key.attributes())
        return {table: {"Keys": asked, "ConsistentRead": True} for table, asked in grouped.items()}

    def _transact_item(self, action: Action) -> TransactWriteItemTypeDef:
        request = self._request(action, "TransactWriteItems")
        return cast("TransactWriteItemTypeDef", {_VERBS[type(action)]: request})

    def _request(self, action: Action, operation: str) -> dict[str, Any]:
        """One action, which DynamoDB spells alike alone and in a transaction."""
        table = self._config.physical(_table(action))
        return {"TableName": table, **_subject(action), **_expression(action, operation)}

    def _resource(self, tables: Iterable[str]) -> str:
        names = sorted({self._config.physical(table) for table in tables})
        return f"table '{names[0]}'" if len(names) == 1 else "tables " + ", ".join(map(repr, names))


_VERBS: Final[Mapping[type[Action], str]] = {
    Put: "Put",
    Update: "Update",
    Delete: "Delete",
    Check: "ConditionCheck",
}


def _table(action: Action) -> str:
    return action.table if isinstance(action, Put) else action.key.table


def _subject(action: Action) -> dict[str, Any]:
    if isinstance(action, Put):
        return {"Item": action.item}
    key = {"Key": action.key.attributes()}
    return key | {"UpdateExpression": action.expression} if isinstance(action, Update) else key


def _expression(action: Action, operation: str) -> dict[str, Any]:
    request: dict[str, Any] = {}
    condition = action.condition or Condition("")
    if condition.expression:
        request["ConditionExpression"] = condition.expression
    own = (action.names, action.values) if isinstance(action, Update) else ({}, {})
    if names := _merged(own[0], condition.names, operation):
        request["ExpressionAttributeNames"] = names
    if values := _merged(own[1], condition.values, operation):
        request["ExpressionAttributeValues"] = values
    if action.return_old:
        request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    return request


def _merged(
    update: Mapping[str, Any], condition: Mapping[str, Any], operation: str
) -> dict[str, Any]:
    """DynamoDB knows one set of placeholders for both expressions of an action."""
    clashes = [name for name in update if condition.get(name, update[name]) != update[name]]
    if clashes:
        raise Refused(
            f"An update and its condition use {clashes[0]!r} for two different things: "
            "give one of them another placeholder.",
            operation=operation,
        )
    return {**update, **condition}


def _key_condition(
    index: str | None, pk: str, sk_prefix: str, sk_before: str | None
) -> dict[str, Any]:
    """Both parts of a sort key's range are sent if both are given; DynamoDB refuses that."""
    prefix = "" if index is None else f"{index}_"
    terms, values = ["#pk = :pk"], {":pk": {"S": pk}}
    names = {"#pk": f"{prefix}pk"}
    if sk_prefix:
        terms.append("begins_with(#sk, :prefix)")
        values[":prefix"] = {"S": sk_prefix}
    if sk_before is not None:
        terms.append("#sk < :before")
        values[":before"] = {"S": sk_before}
    if len(terms) > 1:
        names["#sk"] = f"{prefix}sk"
    return {
        "KeyConditionExpression": " AND ".join(terms),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }


def _key_of(table: str, attributes: Mapping[str, Any]) -> ItemKey:
    return ItemKey(table, attributes["pk"]["S"], attributes["sk"]["S"])


def _write_request(action: Put | Delete) -> WriteRequestTypeDef:
    if isinstance(action, Put):
        return {"PutRequest": {"Item": action.item}}
    return {"DeleteRequest": {"Key": action.key.attributes()}}


def _written(request: Mapping[str, Any]) -> Mapping[str, Any]:
    put = request.get("PutRequest")
    item: Mapping[str, Any] = put["Item"] if put else request["DeleteRequest"]["Key"]
    return item
