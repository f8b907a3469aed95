"""Make a topology exist in an account: by API calls, what the CDK app deploys as a stack.

Everything is looked at before it is changed, so a second run changes nothing. What is no
longer in the topology stays: provisioning never deletes.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from headrace.aws.client import Clients, open_clients
from headrace.aws.config import DEFAULT_BUS, AwsConfig, place
from headrace.aws.faults import translated
from headrace.aws.tables import (
    definitions,
    index_spec,
    index_status,
    is_settled,
    is_usable,
    key_schema,
    require_keys,
)
from headrace.errors import ConfigurationError, NotProvisioned, Refused, Unreachable
from headrace.topology.model import Bus, Queue, Rule, Table, Topology

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import TableDescriptionTypeDef
    from types_aiobotocore_events.type_defs import TargetTypeDef

    from headrace.aws.config import Client

T = TypeVar("T")

_TARGET_ID: Final = "queue"
_ACTIVE_SECONDS: Final = 120
_INDEX_SECONDS: Final = 1_800
"""A new index of an empty table takes minutes, and one of a full table is filled from all of it."""


async def provision(
    topology: Topology,
    config: AwsConfig,
    *,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Create what is missing and update what differs; `progress` gets one line for each change.

    Raises `ConfigurationError` for what AWS cannot change in place (the keys of a table or
    an index, a TTL attribute, a queue between standard and FIFO), and `CloudError` when a call
    fails.
    """
    async with open_clients(config) as clients:
        account = _Account(clients, config, progress or _silence)
        await _together([_tables(account, topology), _messaging(account, topology)])


async def _tables(account: _Account, topology: Topology) -> None:
    await _together(map(account.table, topology.tables))


async def _messaging(account: _Account, topology: Topology) -> None:
    """In the order in which each thing names another: a queue its dead-letter queue, a rule its
    bus, a policy its rules, a target its queue."""
    await _together(map(account.bus, topology.buses))
    redriven_to = {queue.dead_letters for queue in topology.queues}
    first = [queue for queue in topology.queues if queue.name in redriven_to]
    rest = [queue for queue in topology.queues if queue.name not in redriven_to]
    dead_letters = await _together(account.queue(queue, {}) for queue in first)
    arns = {queue.name: queue.arn for queue in dead_letters}
    queues = await _together(account.queue(queue, arns) for queue in rest)
    rule_arns = await _together(map(account.rule, topology.rules))
    sources: defaultdict[str, list[str]] = defaultdict(list)
    for rule, arn in zip(topology.rules, rule_arns, strict=True):
        for name in dict.fromkeys(filter(None, (rule.queue, rule.undelivered))):
            sources[name].append(arn)
    existing = {queue.name: queue for queue in (*dead_letters, *queues)}
    # Policies before targets: EventBridge does not try again where it was not allowed.
    await _together(account.policy(queue, sources[name]) for name, queue in existing.items())
    await _together(account.target(rule, existing) for rule in topology.rules)


@dataclass(frozen=True, slots=True)
class _ExistingQueue:
    name: str
    fifo: bool
    url: str
    attributes: Mapping[str, str]

    @property
    def arn(self) -> str:
        return self.attributes["QueueArn"]


@dataclass(frozen=True, slots=True)
class _Account:
    """One method per kind of resource: look, create or update, say so."""

    clients: Clients
    config: AwsConfig
    progress: Callable[[str], None]

    async def bus(self, bus: Bus) -> None:
        if bus.name == DEFAULT_BUS:
            return
        events, name = self.clients.events, self.config.physical_bus(bus.name)
        resource = f"bus '{name}'"
        if await _found(events, "DescribeEventBus", resource, events.describe_event_bus(Name=name)):
            return
        await _asked(events, "CreateEventBus", resource, events.create_event_bus(Name=name))
        self.progress(f"bus {name}: created")

    async def queue(self, queue: Queue, dead_letter_arns: Mapping[str, str]) -> _ExistingQueue:
        sqs, name = self.clients.sqs, self.config.physical(queue.name)
        wanted = _queue_attributes(queue, dead_letter_arns)
        found = await _found(
            sqs, "GetQueueUrl", f"queue '{name}'", sqs.get_queue_url(QueueName=name)
        )
        url = found["QueueUrl"] if found else await self._create_queue(name, queue, wanted)
        existing = _ExistingQueue(
            queue.name, queue.fifo, url, await self._queue_attributes(name, url)
        )
        if (existing.attributes.get("FifoQueue") == "true") != queue.fifo:
            raise ConfigurationError(
                f"The queue '{name}' {'is not' if queue.fifo else 'is'} a FIFO queue, and SQS "
                "cannot change that: give the queue another name, or delete it first."
            )
        await self._update_queue(existing, wanted)
        return existing

    async def policy(self, queue: _ExistingQueue, rule_arns: Sequence[str]) -> None:
        # Over plain HTTP, which only emulators speak, this statement would lock everyone out.
        tls_only = self.clients.sqs.meta.endpoint_url.startswith("https:")
        policy = _queue_policy(queue.arn, rule_arns, tls_only=tls_only)
        await self._update_queue(queue, {"Policy": policy})

    async def rule(self, rule: Rule) -> str:
        events, name = self.clients.events, self.config.physical(rule.name)
        bus, resource = self.config.physical_bus(rule.bus), f"rule '{name}'"
        found = await _found(
            events, "DescribeRule", resource, events.describe_rule(Name=name, EventBusName=bus)
        )
        if found and _same(found.get("EventPattern", ""), _json(rule.pattern)):
            return found["Arn"]
        put = events.put_rule(Name=name, EventBusName=bus, EventPattern=_json(rule.pattern))
        answer = await _asked(events, "PutRule", resource, put)
        self.progress(f"rule {name}: {'pattern updated' if found else 'created'}")
        return answer["RuleArn"]

    async def target(self, rule: Rule, existing: Mapping[str, _ExistingQueue]) -> None:
        events, name = self.clients.events, self.config.physical(rule.name)
        bus, resource = self.config.physical_bus(rule.bus), f"rule '{name}'"
        queue = existing[rule.queue]
        wanted: TargetTypeDef = {"Id": _TARGET_ID, "Arn": queue.arn}
        if queue.fifo:
            wanted["SqsParameters"] = {"MessageGroupId": rule.name}
        if rule.undelivered is not None:
            wanted["DeadLetterConfig"] = {"Arn": existing[rule.undelivered].arn}
        listed = await _asked(
            events,
            "ListTargetsByRule",
            resource,
            events.list_targets_by_rule(Rule=name, EventBusName=bus),
        )
        if any(wanted.items() <= target.items() for target in listed["Targets"]):
            return
        put = events.put_targets(Rule=name, EventBusName=bus, Targets=[wanted])
        answer = await _asked(events, "PutTargets", resource, put)
        for refused in answer.get("FailedEntries", ()):
            raise Refused(
                f"PutTargets on the {resource} failed with {refused['ErrorCode']}: "
                f"{refused['ErrorMessage']}",
                operation="PutTargets",
                code=refused["ErrorCode"],
            )
        self.progress(f"rule {name}: sends to {self.config.physical(queue.name)}")

    async def table(self, table: Table) -> None:
        dynamodb, name = self.clients.dynamodb, self.config.physical(table.name)
        found = await _found(
            dynamodb, "DescribeTable", f"table '{name}'", dynamodb.describe_table(TableName=name)
        )
        if found is None:
            await self._create_table(name, table.indexes)
        else:
            require_keys(name, found["Table"], table.indexes)
        await self._table_is(is_usable, name, f"table '{name}'", _ACTIVE_SECONDS)
        for index in table.indexes:
            await self._index(name, index)
        await self._expire(name, table.ttl_attribute)

    async def _create_queue(self, name: str, queue: Queue, wanted: Mapping[str, str]) -> str:
        attributes = {key: value for key, value in wanted.items() if value}
        if queue.fifo:
            attributes["FifoQueue"] = "true"
        create = self.clients.sqs.create_queue(QueueName=name, Attributes=cast(Any, attributes))
        answer = await _asked(self.clients.sqs, "CreateQueue", f"queue '{name}'", create)
        if not self.config.is_local("sqs"):
            # "You must wait at least one second after the queue is created to be able to use it."
            await asyncio.sleep(1)
        self.progress(f"queue {name}: created")
        return answer["QueueUrl"]

    async def _queue_attributes(self, name: str, url: str) -> Mapping[str, str]:
        ask = self.clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        answer = await _asked(self.clients.sqs, "GetQueueAttributes", f"queue '{name}'", ask)
        return cast("Mapping[str, str]", answer["Attributes"])

    async def _update_queue(self, queue: _ExistingQueue, wanted: Mapping[str, str]) -> None:
        name = self.config.physical(queue.name)
        changed = {
            key: value
            for key, value in wanted.items()
            if not _same(queue.attributes.get(key, ""), value)
        }
        if not changed:
            return
        put = self.clients.sqs.set_queue_attributes(
            QueueUrl=queue.url, Attributes=cast(Any, changed)
        )
        await _asked(self.clients.sqs, "SetQueueAttributes", f"queue '{name}'", put)
        self.progress(f"queue {name}: {', '.join(changed)} set")

    async def _create_table(self, name: str, indexes: Sequence[str]) -> None:
        # A list of no indexes is refused: it has to be left out.
        given: dict[str, Any] = {"GlobalSecondaryIndexes": [index_spec(i) for i in indexes]}
        create = self.clients.dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=key_schema(""),
            AttributeDefinitions=definitions(["", *(f"{index}_" for index in indexes)]),
            **(given if indexes else {}),
        )
        await _asked(self.clients.dynamodb, "CreateTable", f"table '{name}'", create)
        self.progress(f"table {name}: created")

    async def _index(self, name: str, index: str) -> None:
        """DynamoDB makes one index of a table at a time; meanwhile the table is UPDATING."""
        table = await self._table_is(is_settled, name, f"table '{name}'", _INDEX_SECONDS)
        if index_status(table, index) is None:
            await self._add_index(name, index)
        await self._table_is(
            lambda table: index_status(table, index) == "ACTIVE",
            name,
            f"index '{index}' of the table '{name}'",
            _INDEX_SECONDS,
        )

    async def _add_index(self, name: str, index: str) -> None:
        update = self.clients.dynamodb.update_table(
            TableName=name,
            AttributeDefinitions=definitions([f"{index}_"]),
            GlobalSecondaryIndexUpdates=[{"Create": index_spec(index)}],
        )
        await _asked(self.clients.dynamodb, "UpdateTable", f"table '{name}'", update)
        self.progress(f"table {name}: index {index} added, waiting until it is filled")

    async def _table_is(
        self,
        ready: Callable[[TableDescriptionTypeDef], bool],
        name: str,
        waited_for: str,
        seconds: int,
    ) -> TableDescriptionTypeDef:
        resource = f"table '{name}'"
        for _ in range(seconds):
            ask = self.clients.dynamodb.describe_table(TableName=name)
            # Reads of the catalogue are eventually consistent: a new table may not be in it yet.
            answer = await _found(self.clients.dynamodb, "DescribeTable", resource, ask)
            if answer and ready(answer["Table"]):
                return answer["Table"]
            await asyncio.sleep(1)
        raise Unreachable(
            f"The {waited_for} is not active after {seconds} s: look at it in the console, "
            "then provision again.",
            operation="DescribeTable",
        )

    async def _expire(self, name: str, attribute: str) -> None:
        dynamodb, resource = self.clients.dynamodb, f"table '{name}'"
        answer = await _asked(
            dynamodb, "DescribeTimeToLive", resource, dynamodb.describe_time_to_live(TableName=name)
        )
        current = answer["TimeToLiveDescription"]
        if current.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
            if current.get("AttributeName") == attribute:
                return
            raise ConfigurationError(
                f"Items of the table '{name}' expire by '{current.get('AttributeName')}', headrace "
                f"needs '{attribute}': turn the table's TTL off, wait an hour, provision again."
            )
        update = dynamodb.update_time_to_live(
            TableName=name,
            TimeToLiveSpecification={"Enabled": True, "AttributeName": attribute},
        )
        await _asked(dynamodb, "UpdateTimeToLive", resource, update)
        self.progress(f"table {name}: expires by {attribute}")


async def _asked(client: Client, operation: str, resource: str, answer: Awaitable[T]) -> T:
    with translated(operation, resource, place(client)):
        return await answer


async def _found(client: Client, operation: str, resource: str, answer: Awaitable[T]) -> T | None:
    try:
        return await _asked(client, operation, resource, answer)
    except NotProvisioned:
        return None


def _queue_attributes(queue: Queue, dead_letter_arns: Mapping[str, str]) -> dict[str, str]:
    """Every attribute headrace decides, as SQS spells it; an empty one takes it away."""
    attributes = {
        "VisibilityTimeout": str(int(queue.visibility.total_seconds())),
        "MessageRetentionPeriod": str(int(queue.retention.total_seconds())),
        "RedrivePolicy": "",
    }
    if queue.dead_letters:
        attributes["RedrivePolicy"] = _json(
            {
                "deadLetterTargetArn": dead_letter_arns[queue.dead_letters],
                "maxReceiveCount": queue.max_receive_count,
            }
        )
    if queue.fifo:
        # EventBridge gives no deduplication id, so the queue must derive one from the content.
        # The other two are what SQS calls high throughput.
        attributes |= {
            "ContentBasedDeduplication": "true",
            "DeduplicationScope": "messageGroup",
            "FifoThroughputLimit": "perMessageGroupId",
        }
    return attributes


def _queue_policy(queue_arn: str, rule_arns: Sequence[str], *, tls_only: bool) -> str:
    """Lets these rules send, and no others; everyone else needs an IAM policy of their own."""
    statements: list[dict[str, Any]] = []
    if rule_arns:
        statements.append(
            {
                "Sid": "RulesMaySend",
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": queue_arn,
                "Condition": {"ArnEquals": {"aws:SourceArn": sorted(rule_arns)}},
            }
        )
    if tls_only:
        statements.append(
            {
                "Sid": "OnlyOverTls",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "sqs:*",
                "Resource": queue_arn,
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        )
    return _json({"Version": "2012-10-17", "Statement": statements}) if statements else ""


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _same(current: str, wanted: str) -> bool:
    """Whether two settings mean the same; those that are JSON may be spelled differently."""
    if current == wanted:
        return True
    if not (current.startswith("{") and wanted.startswith("{")):
        return False
    return bool(json.loads(current) == json.loads(wanted))


def _silence(line: str) -> None:
    """Nobody listens."""


async def _together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All at once; the first failure ends the others and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(call) for call in calls]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [call.result() for call in running]
