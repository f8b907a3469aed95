"""A record of a Lambda event becomes a delivery."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from headrace.aws.config import AwsConfig
from headrace.aws.lambda_records import delivery_from_lambda
from headrace.ports import Attribute, Delivery


def record(queue: str = "inventory", **changes: Any) -> dict[str, Any]:
    return {
        "messageId": "059f36b4-87a3-44ab-83d2-661975830a7d",
        "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
        "body": '{"detail-type": "OrderPlaced"}',
        "attributes": {
            "ApproximateReceiveCount": "3",
            "SentTimestamp": "1700000000123",
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": "1700000000200",
        },
        "messageAttributes": {},
        "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:eu-west-1:123456789012:{queue}",
        "awsRegion": "eu-west-1",
        **changes,
    }


def test_a_record_is_normalised_to_a_delivery() -> None:
    deadline = datetime(2026, 11, 1, tzinfo=UTC)

    assert delivery_from_lambda(record(), AwsConfig(), deadline=deadline) == Delivery(
        message_id="059f36b4-87a3-44ab-83d2-661975830a7d",
        receipt_handle="AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
        body='{"detail-type": "OrderPlaced"}',
        queue="inventory",
        receive_count=3,
        sent_at=datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC),
        deadline=deadline,
    )


def test_the_namespace_is_taken_off_the_queue_of_a_record() -> None:
    delivery = delivery_from_lambda(record("dev-inventory"), AwsConfig(namespace="dev"))

    assert delivery.queue == "inventory"


@pytest.mark.parametrize(("queue", "fifo"), [("inventory.fifo", True), ("inventory", False)])
def test_a_group_orders_only_on_a_fifo_queue(queue: str, fifo: bool) -> None:
    attributes = {"ApproximateReceiveCount": "1", "MessageGroupId": "order-7"}

    delivery = delivery_from_lambda(record(queue, attributes=attributes), AwsConfig())

    assert (delivery.group_id, delivery.fifo) == ("order-7", fifo)


def test_the_trace_header_of_a_record_is_kept() -> None:
    header = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"
    attributes = {"ApproximateReceiveCount": "1", "AWSTraceHeader": header}

    delivery = delivery_from_lambda(record(attributes=attributes), AwsConfig())

    assert delivery.trace_header == header


def test_message_attributes_of_a_record_keep_type_and_value() -> None:
    given = {
        "kind": {"stringValue": "order", "dataType": "String.label", "binaryListValues": []},
        "size": {"stringValue": "12.5", "dataType": "Number"},
        "thumb": {"binaryValue": "AAEC", "dataType": "Binary.png"},
    }

    delivery = delivery_from_lambda(record(messageAttributes=given), AwsConfig())

    assert delivery.attributes == {
        "kind": Attribute("order", "String.label"),
        "size": Attribute("12.5", "Number"),
        "thumb": Attribute(b"\x00\x01\x02", "Binary.png"),
    }


def test_reading_records_imports_no_aws_library() -> None:
    program = (
        "import sys, headrace.aws.lambda_records;"
        "print(sorted({'aiobotocore', 'botocore', 'aiohttp'} & set(sys.modules)))"
    )

    printed = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    ).stdout

    assert printed.strip() == "[]"
