"""SQS records of a Lambda event. Imports no AWS library, for the sake of the cold start."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from headrace.aws.config import AwsConfig
from headrace.aws.deliveries import delivery, is_binary
from headrace.ports import Attribute, Delivery


def delivery_from_lambda(
    record: Mapping[str, Any], config: AwsConfig, *, deadline: datetime | None = None
) -> Delivery:
    """One entry of `Records` as a delivery; its queue is the logical name of the event source.

    Raises `KeyError` when the record is not one that an SQS event source mapping makes.
    """
    return delivery(
        message_id=record["messageId"],
        receipt_handle=record["receiptHandle"],
        body=record["body"],
        queue=config.logical(record["eventSourceARN"].rpartition(":")[2]),
        system=record["attributes"],
        attributes={
            name: _attribute(given) for name, given in record.get("messageAttributes", {}).items()
        },
        deadline=deadline,
    )


def _attribute(given: Mapping[str, Any]) -> Attribute:
    kind = given["dataType"]
    value = b64decode(given["binaryValue"]) if is_binary(kind) else given["stringValue"]
    return Attribute(value=value, type=kind)
