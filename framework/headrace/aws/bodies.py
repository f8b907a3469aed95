"""The requests of what is called for each message, written by orjson.

botocore walks a request by its model, one attribute value after the other, to make of it what it
is already: the adapters spell it as the service takes it. So botocore is given a request with
nothing in it, and the body takes the place of what it makes of that, before it is signed. All else
of a call remains botocore's: endpoint, headers, signature, retries, errors. What that saves is a
part of what `tuned_loop` does beside `bare_loop` (`make bench-quick`).

A value of the wrong type is not refused here. Nothing in headrace makes one; DynamoDB answers for
what `tx.write` was given.

Both hooks are events that botocore documents: `provide-client-params`, which sees the parameters
and returns those that count, and `before-call`, which sees the request that was made of them.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from aiobotocore.client import AioBaseClient

OF_DYNAMODB: Final = (
    "BatchGetItem",
    "BatchWriteItem",
    "DeleteItem",
    "PutItem",
    "Query",
    "TransactWriteItems",
    "UpdateItem",
)
OF_EVENTS: Final = ("PutEvents",)
OF_SQS: Final = ("DeleteMessageBatch", "SendMessageBatch")

_BODY: Final = "headrace_body"


def write_bodies(client: AioBaseClient, operations: Iterable[str]) -> None:
    """Have a client write the bodies of these operations with orjson, if it speaks JSON."""
    if client.meta.service_model.resolved_protocol != "json":
        return
    service = client.meta.service_model.service_id.hyphenize()
    for operation in operations:
        client.meta.events.register(f"provide-client-params.{service}.{operation}", _take)
        client.meta.events.register(f"before-call.{service}.{operation}", _give)


def _take(params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> Any:
    if any(name not in params for name in model.idempotent_members):
        # botocore makes up a token, once this has been.
        return None
    try:
        context[_BODY] = orjson.dumps(params, _encoded, orjson.OPT_PASSTHROUGH_DATETIME)
    except TypeError:
        # What orjson refuses, such as half of a surrogate pair or a set, botocore has its own way
        # with, and the service its own answer.
        return None
    # The rules for endpoints look for the tables in it. Only what they read off ARNs is lost, and
    # headrace's tables go by their names.
    return {name: _emptied(value) for name, value in params.items()}


def _give(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    body = context.pop(_BODY, None)
    if body is not None:
        params["body"] = body


def _emptied(value: Any) -> Any:
    return type(value)() if isinstance(value, (dict, list)) else value


def _encoded(value: object) -> Any:
    """As the JSON protocols have it: blobs in base64, times in seconds."""
    if isinstance(value, (bytes, bytearray)):
        return b64encode(value).decode()
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.timestamp()
    raise TypeError
