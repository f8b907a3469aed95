"""The work in the requests of the floors: what headrace asks of AWS for the same handler.

A unit is one message: its inbox record, its order and its event, as they stand in headrace's own
requests. Nothing is validated. What is read must be there and be of a kind that can be used, so a
message that is not JSON, no `OrderPlaced`, or has no lines is found out and nothing else is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID, uuid4, uuid5

import orjson

from benchmarks.side.protocol import Job
from benchmarks.side.work import (
    DETAIL_TYPE,
    OUT_DETAIL_TYPE,
    OUT_SOURCE,
    SOURCE,
    effect,
    total,
    wire_item,
)

Request: TypeAlias = dict[str, Any]

_CONSUMER: Final = "orders.accept_order"
_DERIVED_IDS: Final = UUID("8d3f4a52-6a0e-5c39-9b57-1f3c8a7d2e60")
_KEEP_SECONDS: Final = 23 * 86_400
_VERSIONS: Final = 1_000_000
_FREE: Final = "attribute_not_exists(pk) OR expires_at < :now OR #status = :leased"


class Message(NamedTuple):
    """One message, from a receive or from a Lambda event."""

    id: str
    receipt: str
    body: str


class Unit(NamedTuple):
    """What one message wants written and sent."""

    message: Message
    claim: Request
    put: Request
    done: Request
    events: Sequence[Request]


class Orders:
    """Makes the requests for one job."""

    def __init__(self, job: Job) -> None:
        self._table = job.table
        self._bus = job.bus

    def unit(self, message: Message) -> Unit:
        """Raises `ValueError`, `KeyError` or `TypeError` for a message that cannot be used."""
        envelope = orjson.loads(message.body)
        if envelope["detail-type"] != DETAIL_TYPE or envelope["source"] != SOURCE:
            raise ValueError("It is no order.")
        cause, order = envelope["detail"]["metadata"], envelope["detail"]["data"]
        cents = total(order["lines"])
        now = datetime.now(UTC)
        id = str(uuid5(_DERIVED_IDS, f"{_CONSUMER}\n{cause['id']}\n0"))
        detail = _detail(id, now, cause, {"order_id": order["order_id"], "total": cents})
        record = self._record(cause["id"], now)
        return Unit(
            message,
            claim=self._claim(_pending(record, id, detail, now), now),
            put=self._put(effect(order["order_id"], order["customer"]["email"], cents), now),
            done=record,
            events=(self._event(detail, now),),
        )

    def standing(self, item: Request) -> list[Request]:
        """The events that a record still has to send, which another delivery has written."""
        if item["status"]["S"] == "done":
            return []
        outgoing = [entry["M"] for entry in item["outgoing"]["L"]]
        return [
            self._event(fields["detail"]["S"], datetime.fromisoformat(fields["time"]["S"]))
            for fields in outgoing
        ]

    def transaction(self, units: Sequence[Unit]) -> Request:
        actions = [{"Put": put} for unit in units for put in (unit.claim, unit.put)]
        return {"TransactItems": actions, "ClientRequestToken": str(uuid4())}

    def marks(self, done: Sequence[Request]) -> Request:
        return {"RequestItems": {self._table: [{"PutRequest": {"Item": item}} for item in done]}}

    def _record(self, event_id: str, now: datetime) -> Request:
        return {
            "pk": {"S": f"inbox#{_CONSUMER}#{event_id}"},
            "sk": {"S": "-"},
            "commit_id": {"S": str(uuid4())},
            "status": {"S": "done"},
            "expires_at": {"N": str(int(now.timestamp()) + _KEEP_SECONDS)},
        }

    def _claim(self, record: Request, now: datetime) -> Request:
        return {
            "TableName": self._table,
            "Item": record,
            "ConditionExpression": _FREE,
            "ExpressionAttributeNames": {"#status": "status"},
            "ExpressionAttributeValues": {
                ":now": {"N": str(int(now.timestamp()))},
                ":leased": {"S": "leased"},
            },
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }

    def _put(self, item: dict[str, str | int], now: datetime) -> Request:
        version = int(now.timestamp() * 1_000_000) * _VERSIONS + 1
        kept = {"_version": {"N": str(version)}, "_type": {"S": "Order"}}
        return {
            "TableName": self._table,
            "Item": {**wire_item(item), **kept},
            "ConditionExpression": "attribute_not_exists(pk)",
        }

    def _event(self, detail: str, time: datetime) -> Request:
        return {
            "EventBusName": self._bus,
            "Source": OUT_SOURCE,
            "DetailType": OUT_DETAIL_TYPE,
            "Detail": detail,
            "Time": time,
        }


def _detail(id: str, now: datetime, cause: Request, data: Request) -> str:
    metadata = {
        "id": id,
        "type": OUT_DETAIL_TYPE,
        "version": 1,
        "time": now,
        "correlation_id": cause["correlation_id"],
        "causation_id": cause["id"],
    }
    return orjson.dumps({"metadata": metadata, "data": data}, option=orjson.OPT_UTC_Z).decode()


def _pending(record: Request, id: str, detail: str, now: datetime) -> Request:
    outgoing = {
        "id": {"S": id},
        "type": {"S": OUT_DETAIL_TYPE},
        "detail": {"S": detail},
        "time": {"S": now.isoformat()},
        "source": {"S": OUT_SOURCE},
    }
    return record | {"status": {"S": "pending"}, "outgoing": {"L": [{"M": outgoing}]}}
