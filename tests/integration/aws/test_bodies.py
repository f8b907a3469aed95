"""What is sent to AWS says the same, whoever has written it: orjson, or botocore."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from headrace.aws.bodies import OF_DYNAMODB, OF_EVENTS, OF_SQS, write_bodies
from headrace.aws.client import open_clients
from headrace.aws.config import AwsConfig

ITEM = {
    "pk": {"S": "order#ä\u2028\U0001f375"},
    "sk": {"S": "-"},
    "sum": {"N": "12345678901234567890.5"},
    "seal": {"B": b"\x00\xff"},
    "seals": {"BS": [b"a", bytearray(b"b")]},
    "lines": {"L": [{"M": {"sku": {"S": "TEA"}, "gift": {"BOOL": False}, "note": {"NULL": True}}}]},
}
KEY = {"pk": ITEM["pk"], "sk": ITEM["sk"]}

CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("dynamodb", "put_item", {"TableName": "orders", "Item": ITEM}),
    ("dynamodb", "delete_item", {"TableName": "orders", "Key": KEY, "ReturnValues": "NONE"}),
    (
        "dynamodb",
        "update_item",
        {
            "TableName": "orders",
            "Key": KEY,
            "UpdateExpression": "SET #a = :a",
            "ExpressionAttributeNames": {"#a": "a"},
            "ExpressionAttributeValues": {":a": {"B": b"a"}},
        },
    ),
    (
        "dynamodb",
        "transact_write_items",
        {
            "TransactItems": [
                {"Put": {"TableName": "orders", "Item": ITEM}},
                {"ConditionCheck": {"TableName": "a", "Key": KEY, "ConditionExpression": "x"}},
            ],
            "ClientRequestToken": "0f6e3b1c",
        },
    ),
    ("dynamodb", "batch_write_item", {"RequestItems": {"a": [{"PutRequest": {"Item": ITEM}}]}}),
    (
        "dynamodb",
        "batch_get_item",
        {"RequestItems": {"orders": {"Keys": [KEY], "ConsistentRead": True}}},
    ),
    (
        "dynamodb",
        "query",
        {"TableName": "orders", "Limit": 2, "ExclusiveStartKey": KEY, "ScanIndexForward": True},
    ),
    (
        "events",
        "put_events",
        {
            "Entries": [
                {
                    "Source": "shop",
                    "DetailType": "OrderPlaced",
                    "Detail": '{"a": "ä"}',
                    "Time": datetime(2026, 11, 1, 12, 0, 0, 999_999, UTC),
                }
            ]
        },
    ),
    (
        "sqs",
        "send_message_batch",
        {
            "QueueUrl": "http://127.0.0.1:1/000000000000/orders",
            "Entries": [
                {
                    "Id": "0",
                    "MessageBody": "<ä>",
                    "DelaySeconds": 3,
                    "MessageAttributes": {
                        "a": {"DataType": "Binary", "BinaryValue": b"\xff"},
                        "b": {"DataType": "String", "StringValue": "ä"},
                    },
                }
            ],
        },
    ),
    (
        "sqs",
        "delete_message_batch",
        {
            "QueueUrl": "http://127.0.0.1:1/000000000000/orders",
            "Entries": [{"Id": "0", "ReceiptHandle": "a"}],
        },
    ),
]


class Sent(Exception):
    """Raised in place of sending a request."""

    def __init__(self, request: Any) -> None:
        self.url: str = request.url
        self.body: bytes = request.body
        # All that is the same each time.
        headers = {name.lower(): value for name, value in request.headers.items()}
        changing = ("authorization", "amz-sdk-invocation-id", "x-amz-date", "content-length")
        self.headers = {name: headers[name] for name in headers if name not in changing}


def _stop(request: Any, **_: Any) -> None:
    raise Sent(request)


@asynccontextmanager
async def client(service: str) -> AsyncIterator[Any]:
    opening = get_session().create_client(
        service,
        region_name="eu-central-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=AioConfig(parameter_validation=False, user_agent="test"),
    )
    async with opening as opened:
        opened.meta.events.register(f"before-send.{service}", _stop)
        yield opened


async def sent(service: str, method: str, params: dict[str, Any], *, own: bool) -> Sent:
    async with client(service) as opened:
        if own:
            write_bodies(opened, [*OF_DYNAMODB, *OF_EVENTS, *OF_SQS])
        with pytest.raises(Sent) as stopped:
            await getattr(opened, method)(**params)
    return stopped.value


@pytest.mark.parametrize(("service", "method", "params"), CALLS, ids=[call[1] for call in CALLS])
async def test_a_request_says_what_botocores_own_would(
    service: str, method: str, params: dict[str, Any]
) -> None:
    own, botocores = [await sent(service, method, params, own=own) for own in (True, False)]
    assert json.loads(own.body) == json.loads(botocores.body)
    assert (own.url, own.headers) == (botocores.url, botocores.headers)


async def test_the_body_is_orjsons() -> None:
    """Without spaces, and in UTF-8: or the tests above would compare botocore with itself."""
    request = await sent("dynamodb", "put_item", {"TableName": "ä", "Item": {}}, own=True)
    assert request.body == '{"TableName":"ä","Item":{}}'.encode()


@pytest.mark.parametrize(
    "value",
    [{"SS": {"one"}}, {"S": "half \ud83c of a pair"}, {"N": 2**70}],
    ids=["set", "surrogate", "integer"],
)
async def test_what_orjson_refuses_is_left_to_botocore(value: dict[str, Any]) -> None:
    params = {"TableName": "orders", "Item": {"a": value}}
    own, botocores = [await sent("dynamodb", "put_item", params, own=own) for own in (True, False)]
    assert own.body == botocores.body


async def test_the_callers_request_stays_as_it_is() -> None:
    params = {"TableName": "orders", "Item": dict(ITEM)}
    await sent("dynamodb", "put_item", params, own=True)
    assert params == {"TableName": "orders", "Item": ITEM}


async def test_a_token_that_botocore_would_make_up_is_still_made_up() -> None:
    params = {"TransactItems": [{"Put": {"TableName": "orders", "Item": KEY}}]}
    request = await sent("dynamodb", "transact_write_items", params, own=True)
    assert json.loads(request.body)["ClientRequestToken"]


async def test_the_user_agent_names_headrace_and_the_application(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SDK_UA_APP_ID", "shop")
    config = AwsConfig.from_environment({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    async with open_clients(config) as clients:
        clients.dynamodb.meta.events.register("before-send.dynamodb", _stop)
        with pytest.raises(Sent) as stopped:
            await clients.dynamodb.put_item(TableName="orders", Item={})
    agent = str(stopped.value.headers["user-agent"], "ascii")
    assert agent.startswith("aiobotocore/")
    assert agent.endswith(" app/shop lib/headrace")
    assert agent.count("botocore/") == 2  # the end of aiobotocore/… is the other
