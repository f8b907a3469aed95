"""The work, which is the same for every contender. Standard library only.

What comes is an order, in an SQS message as a rule of EventBridge leaves it. To handle it is

    1. to parse the body and to validate `detail.data`        (`model.OrderPlaced`)
    2. to write one item, `order#<order id>`                  (`effect`)
       and, where the contender is idempotent, to do so once per event (`event_id`)
    3. to publish one event, `OrderAccepted`, with `detail`   (`accepted`)
    4. to delete the message, or to report it as done

A bad one (`is_bad`) does not validate: it has neither an effect nor an event, and fails alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import md5
from typing import Any, Final

SOURCE: Final = "bench.shop"
DETAIL_TYPE: Final = "OrderPlaced"
OUT_SOURCE: Final = "bench.orders"
OUT_DETAIL_TYPE: Final = "OrderAccepted"

REGION: Final = "us-east-1"
ACCOUNT: Final = "000000000000"
TIME: Final = "2026-11-01T12:00:00Z"

_ORDER_ID: Final = "{order id}"
_EVENT_ID: Final = "{event id}"
_SKUS: Final = ("TEA-OOLONG-250", "CUP-STONEWARE-L", "KETTLE-GOOSENECK")


def order_id(number: int) -> str:
    """Of the message with this number: `o-00000012`. The server finds it in what is written."""
    return f"o-{number:08d}"


def event_id(number: int, seed: int = 1) -> str:
    """What tells one event from another: the key of idempotency. It has the form of a UUID."""
    return f"{seed:08x}-be4c-4a11-9c0d-{number:012x}"


def is_bad(number: int, poison: float) -> bool:
    """Whether this message is one of those that do not validate: one in each 1/poison."""
    if not poison:
        return False
    every = round(1 / poison)
    return number % every == every // 2


def order(number: int) -> dict[str, Any]:
    """The payload, `detail.data` of a message. Money is in cents."""
    return {
        "order_id": order_id(number),
        "customer": {"name": "Freja Holm", "email": "freja.holm@example.com"},
        "lines": [
            {"sku": sku, "quantity": 1 + (number + line) % 3, "unit_price": 590 + 100 * line}
            for line, sku in enumerate(_SKUS)
        ],
        "ship_to": {
            "street": "Nørrebrogade 118, 2. tv",
            "postcode": "2200",
            "city": "København N",
            "country": "DK",
        },
        "currency": "EUR",
        "note": "Please leave it with the neighbour on the second floor.",
    }


def bad_order(number: int) -> dict[str, Any]:
    return order(number) | {"lines": "three of the usual"}


def detail(number: int, *, seed: int = 1, bad: bool = False) -> dict[str, Any]:
    """What comes, as EventBridge's `detail`."""
    id = event_id(number, seed)
    return {
        "metadata": {
            "id": id,
            "type": DETAIL_TYPE,
            "version": 1,
            "time": TIME,
            "correlation_id": id,
        },
        "data": bad_order(number) if bad else order(number),
    }


def envelope(number: int, *, seed: int = 1, bad: bool = False) -> dict[str, Any]:
    """The event as EventBridge sends it to a queue."""
    return {
        "version": "0",
        "id": event_id(number, seed),
        "detail-type": DETAIL_TYPE,
        "source": SOURCE,
        "account": ACCOUNT,
        "time": TIME,
        "region": REGION,
        "resources": [],
        "detail": detail(number, seed=seed, bad=bad),
    }


def body(number: int, *, seed: int = 1, poison: float = 0.0) -> str:
    """The body of the SQS message with this number, about 900 bytes."""
    event = envelope(number, seed=seed, bad=is_bad(number, poison))
    return json.dumps(event, separators=(",", ":"))


class Bodies:
    """The same bodies as `body` gives, ten times as fast. Two good ones differ in their ids, and in
    quantities that repeat with every third number."""

    def __init__(self, *, seed: int = 1, poison: float = 0.0) -> None:
        self._seed = seed
        self._poison = poison
        self._texts: dict[tuple[int, bool], str] = {}

    def __getitem__(self, number: int) -> str:
        kind = (number % 3, is_bad(number, self._poison))
        if kind not in self._texts:
            self._texts[kind] = self._text(number)
        text = self._texts[kind].replace(_ORDER_ID, order_id(number))
        return text.replace(_EVENT_ID, event_id(number, self._seed))

    def _text(self, number: int) -> str:
        text = body(number, seed=self._seed, poison=self._poison)
        text = text.replace(order_id(number), _ORDER_ID)
        return text.replace(event_id(number, self._seed), _EVENT_ID)


def lambda_event(
    numbers: Iterable[int], *, queue: str = "orders", seed: int = 1, poison: float = 0.0
) -> dict[str, Any]:
    """What Lambda's runtime hands to the function for these messages."""
    return {
        "Records": [
            _record(number, queue, body(number, seed=seed, poison=poison)) for number in numbers
        ]
    }


def _record(number: int, queue: str, text: str) -> dict[str, Any]:
    return {
        "messageId": message_id(number),
        "receiptHandle": f"r-{number}",
        "body": text,
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": "1793534400000",
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": "1793534400001",
        },
        "messageAttributes": {},
        "md5OfBody": md5(text.encode(), usedforsecurity=False).hexdigest(),
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}",
        "awsRegion": REGION,
    }


def message_id(number: int) -> str:
    """SQS's own id of the message with this number."""
    return f"5e1f0000-0000-4000-8000-{number:012x}"


def total(lines: Iterable[Mapping[str, Any]]) -> int:
    """Cents."""
    return sum(line["quantity"] * line["unit_price"] for line in lines)


def effect(order_id: str, email: str, cents: int) -> dict[str, str | int]:
    """The item to write, as plain values. Its key is `pk` and `sk`."""
    return {
        "pk": f"order#{order_id}",
        "sk": "-",
        "order_id": order_id,
        "email": email,
        "total": cents,
        "status": "accepted",
    }


def wire_item(item: Mapping[str, str | int]) -> dict[str, dict[str, str]]:
    """The same as DynamoDB spells it, for clients that do not do that themselves."""
    return {
        name: {"N": str(value)} if isinstance(value, int) else {"S": value}
        for name, value in item.items()
    }


def accepted(event_id: str, order_id: str, cents: int) -> dict[str, Any]:
    """The `detail` of the event that goes out because of the event with this id."""
    return {
        "metadata": {
            "id": f"{event_id}.accepted",
            "type": OUT_DETAIL_TYPE,
            "version": 1,
            "time": TIME,
            "correlation_id": event_id,
            "causation_id": event_id,
        },
        "data": {"order_id": order_id, "total": cents},
    }


def expected_failures(numbers: Iterable[int], poison: float) -> dict[str, Any]:
    """What a Lambda handler has to answer for these messages: its partial batch response."""
    bad = (number for number in numbers if is_bad(number, poison))
    return {"batchItemFailures": [{"itemIdentifier": message_id(number)} for number in bad]}
