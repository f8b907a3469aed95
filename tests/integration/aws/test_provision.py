"""A topology is made to exist, and kept as it is said to be."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from headrace.aws.client import Clients
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.errors import ConfigurationError
from headrace.ports import BusEntry, Ports
from headrace.topology.model import Table, Topology
from tests.integration.aws import topologies
from tests.integration.aws.slow_dynamodb import SlowDynamoDb, serving

pytestmark = pytest.mark.emulator

ORDERS = {"source": ["shop.order"]}


async def changes(topology: Topology, config: AwsConfig) -> list[str]:
    lines: list[str] = []
    await provision(topology, config, progress=lines.append)
    return [line.removeprefix(config.namespace) for line in lines]


async def attributes(clients: Clients, config: AwsConfig, queue: str) -> dict[str, str]:
    there = await clients.sqs.get_queue_url(QueueName=config.physical(queue))
    answer = await clients.sqs.get_queue_attributes(
        QueueUrl=there["QueueUrl"], AttributeNames=["All"]
    )
    return {str(name): value for name, value in answer["Attributes"].items()}


@pytest.mark.parametrize("suffix", ["", ".fifo"])
async def test_the_second_run_changes_nothing(config: AwsConfig, suffix: str) -> None:
    topology = topologies.shop(ORDERS, suffix=suffix)

    assert await changes(topology, config) != []
    assert await changes(topology, config) == []


async def test_everything_is_named_in_the_namespace(config: AwsConfig) -> None:
    lines: list[str] = []
    await provision(topologies.shop(ORDERS), config, progress=lines.append)

    named = sorted(line.split(" ", 1)[1] for line in lines if line.endswith("created"))
    assert named == [
        f"{config.namespace}-{line}"
        for line in (
            "inventory-dlq: created",
            "inventory: created",
            "inventory: created",
            "inventory: created",
            "shop: created",
        )
    ]


async def test_a_queue_has_the_attributes_of_its_topology(
    config: AwsConfig, clients: Clients
) -> None:
    await provision(topologies.shop(ORDERS), config)

    queue = await attributes(clients, config, "inventory")
    dead_letters = await attributes(clients, config, "inventory-dlq")

    assert (queue["VisibilityTimeout"], queue["MessageRetentionPeriod"]) == ("30", "345600")
    assert dead_letters["MessageRetentionPeriod"] == "1209600"
    redrive = json.loads(queue["RedrivePolicy"])
    assert redrive["deadLetterTargetArn"] == dead_letters["QueueArn"]
    assert int(redrive["maxReceiveCount"]) == 5


async def test_a_fifo_queue_has_high_throughput(config: AwsConfig, clients: Clients) -> None:
    await provision(topologies.shop(ORDERS, suffix=".fifo"), config)

    queue = await attributes(clients, config, "inventory.fifo")

    assert queue["FifoQueue"] == "true"
    assert queue["DeduplicationScope"] == "messageGroup"
    assert queue["FifoThroughputLimit"] == "perMessageGroupId"


async def test_only_the_rule_of_a_queue_may_send_to_it(config: AwsConfig, clients: Clients) -> None:
    await provision(topologies.shop(ORDERS), config)

    queue = await attributes(clients, config, "inventory")
    rule = await clients.events.describe_rule(
        Name=config.physical("inventory"), EventBusName=config.physical("shop")
    )

    [statement] = json.loads(queue["Policy"])["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Action"] == "sqs:SendMessage"
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": [rule["Arn"]]}}


async def test_a_changed_visibility_is_updated_in_place(
    config: AwsConfig, clients: Clients
) -> None:
    await provision(topologies.shop(ORDERS), config)

    lines = await changes(topologies.shop(ORDERS, visibility=timedelta(minutes=3)), config)

    assert [line.split(": ")[1] for line in lines] == ["VisibilityTimeout set"]
    assert (await attributes(clients, config, "inventory"))["VisibilityTimeout"] == "180"


async def test_a_dead_letter_queue_that_is_no_longer_wanted_is_let_go(
    config: AwsConfig, clients: Clients
) -> None:
    await provision(topologies.shop(ORDERS), config)

    await provision(topologies.queue("inventory"), config)

    assert not (await attributes(clients, config, "inventory")).get("RedrivePolicy")


async def test_a_changed_pattern_is_followed_by_the_rule(config: AwsConfig, ports: Ports) -> None:
    await provision(topologies.shop(ORDERS), config)
    await provision(topologies.shop({"source": ["shop.payment"]}), config)

    await ports.bus.put("shop", [BusEntry("shop.order", "Old", "{}")])
    await ports.bus.put("shop", [BusEntry("shop.payment", "New", "{}")])
    deliveries = await ports.queues.receive("inventory", limit=10, wait=timedelta(seconds=2))

    assert [json.loads(delivery.body)["detail-type"] for delivery in deliveries] == ["New"]


async def test_a_table_expires_items_by_its_ttl_attribute(
    config: AwsConfig, clients: Clients
) -> None:
    await provision(topologies.table(), config)

    answer = await clients.dynamodb.describe_time_to_live(TableName=config.physical("inventory"))

    assert answer["TimeToLiveDescription"] == {
        "TimeToLiveStatus": "ENABLED",
        "AttributeName": "expires_at",
    }


async def test_a_table_with_another_ttl_attribute_is_not_touched(config: AwsConfig) -> None:
    await provision(topologies.table(), config)

    with pytest.raises(ConfigurationError, match="turn the table's TTL off"):
        await provision(Topology(tables=(Table("inventory", ttl_attribute="gone_at"),)), config)


async def test_a_table_with_other_keys_is_not_touched(config: AwsConfig, clients: Clients) -> None:
    await clients.dynamodb.create_table(
        TableName=config.physical("inventory"),
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )

    with pytest.raises(ConfigurationError, match=r"has the keys .*'id'.* give the service another"):
        await provision(topologies.table(), config)


def indexed(*indexes: str) -> Topology:
    return Topology(tables=(Table("inventory", indexes=indexes),))


async def indexes(clients: Clients, config: AwsConfig) -> dict[str, list[tuple[str, str]]]:
    """The keys of each index of keys only."""
    answer = await clients.dynamodb.describe_table(TableName=config.physical("inventory"))
    return {
        index["IndexName"]: [(key["AttributeName"], key["KeyType"]) for key in index["KeySchema"]]
        for index in answer["Table"].get("GlobalSecondaryIndexes", ())
        if index["Projection"] == {"ProjectionType": "KEYS_ONLY"}
    }


async def test_a_table_is_made_with_its_indexes_and_then_left_alone(
    config: AwsConfig, clients: Clients
) -> None:
    first = await changes(indexed("due", "owned"), config)

    assert [line.split(": ")[1] for line in first] == ["created", "expires by expires_at"]
    assert await indexes(clients, config) == {
        name: [(f"{name}_pk", "HASH"), (f"{name}_sk", "RANGE")] for name in ("due", "owned")
    }
    assert await changes(indexed("due", "owned"), config) == []


async def test_an_index_that_is_missing_is_added_to_the_table(
    config: AwsConfig, clients: Clients
) -> None:
    await provision(topologies.table(), config)
    assert await indexes(clients, config) == {}

    lines = await changes(indexed("due", "owned"), config)

    assert [line.split(": ")[1].split(",")[0] for line in lines] == [
        "index due added",
        "index owned added",
    ]
    assert (await indexes(clients, config)).keys() == {"due", "owned"}
    assert await changes(indexed("due", "owned"), config) == []


async def test_an_index_that_is_no_longer_named_stays(config: AwsConfig, clients: Clients) -> None:
    await provision(indexed("due"), config)

    assert await changes(topologies.table(), config) == []
    assert (await indexes(clients, config)).keys() == {"due"}


async def test_an_index_with_other_keys_is_not_touched(config: AwsConfig, clients: Clients) -> None:
    text = ("pk", "sk", "group")
    await clients.dynamodb.create_table(
        TableName=config.physical("inventory"),
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in text],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "due",
                "KeySchema": [{"AttributeName": "group", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
    )

    with pytest.raises(
        ConfigurationError, match=r"index 'due' .*'group'.* delete the index.* provision again"
    ):
        await provision(indexed("owned", "due"), config)

    answer = await clients.dynamodb.describe_table(TableName=config.physical("inventory"))
    assert len(answer["Table"]["GlobalSecondaryIndexes"]) == 1


async def test_indexes_are_added_one_after_the_other_each_when_the_last_one_is_active(
    config: AwsConfig,
) -> None:
    database = SlowDynamoDb()
    async with serving(database) as url:
        slow = replace(config, endpoints={**config.endpoints, "dynamodb": url})
        await provision(topologies.table(), slow)
        database.calls.clear()

        await provision(indexed("due", "owned"), slow)

    assert database.table is not None
    statuses = {i["IndexName"]: i["IndexStatus"] for i in database.table["GlobalSecondaryIndexes"]}
    assert statuses == {"due": "ACTIVE", "owned": "ACTIVE"}
    assert database.calls.count("UpdateTable") == 2


async def test_an_index_that_someone_else_is_making_is_waited_for(config: AwsConfig) -> None:
    database = SlowDynamoDb()
    async with serving(database) as url:
        slow = replace(config, endpoints={**config.endpoints, "dynamodb": url})
        await provision(indexed("due"), slow)
        assert database.table is not None
        database.table["TableStatus"] = "UPDATING"
        database.table["GlobalSecondaryIndexes"][0]["IndexStatus"] = "CREATING"
        database.looks_left = 3
        database.calls.clear()

        assert await changes(indexed("due"), slow) == []

    assert database.table["TableStatus"] == "ACTIVE"
    assert "UpdateTable" not in database.calls


async def test_a_queue_does_not_change_between_standard_and_fifo(config: AwsConfig) -> None:
    fifo = topologies.queue("orders.fifo")
    await provision(fifo, config)
    standard = Topology(queues=(replace(fifo.queues[0], fifo=False),))

    with pytest.raises(ConfigurationError, match="is a FIFO queue, and SQS cannot change that"):
        await provision(standard, config)
