"""The account itself, asked for one kind of resource after the other. Nothing is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from headrace.aws.answers import Namespace, mapping_of, queue_of, rule_of, table_of
from headrace.aws.client import Clients
from headrace.aws.config import DEFAULT_BUS, place
from headrace.aws.faults import translated
from headrace.aws.standing import (
    StandingMapping,
    StandingQueue,
    StandingRule,
    StandingTable,
    Unseen,
)
from headrace.errors import CloudError, NotProvisioned
from headrace.topology.model import Topology

T = TypeVar("T")

_AT_A_TIME: Final = 8
"""Calls under way: those that describe are throttled at low rates."""


@dataclass(slots=True)
class Account:
    """One method for each kind of resource. What is not there is left out; what is not told is
    left out too, and noted."""

    clients: Clients
    functions: Any
    known: Namespace
    unseen: list[Unseen] = field(default_factory=list)
    _arns: dict[str, str] = field(default_factory=dict)
    """Of the queues that were read, by their names in AWS."""
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_A_TIME))

    async def buses(self, wanted: Topology) -> tuple[str, ...]:
        async def bus(name: str) -> str | None:
            called = self.known.config.physical_bus(name)
            ask = self._ask(self.clients.events, "describe_event_bus", f"bus '{called}'")
            return name if await self._seen(f"bus {called}", "it", ask(Name=called)) else None

        found = await asyncio.gather(*(bus(each.name) for each in wanted.buses))
        return tuple(name for name in found if name is not None)

    # --- rules ---

    async def rules(self, wanted: Topology) -> tuple[StandingRule, ...]:
        """Those of the namespace on the buses that are wanted; on the account's default bus, only
        if there is a namespace, or they are wanted."""
        buses = sorted({rule.bus for rule in wanted.rules} | {bus.name for bus in wanted.buses})
        on_each = await asyncio.gather(*(self._rules_on(bus, wanted) for bus in buses))
        return tuple(sorted((r for rules in on_each for r in rules), key=lambda r: r.name))

    async def _rules_on(self, bus: str, wanted: Topology) -> Sequence[StandingRule]:
        called = self.known.config.physical_bus(bus)
        every = self._every(self.clients.events, "list_rules", "Rules", f"bus '{called}'")
        listed = await self._seen(f"bus {called}", "its rules", every(EventBusName=called)) or []
        named = {rule.name for rule in wanted.rules if rule.bus == bus}
        known = [rule for rule in listed if self._is_own(bus, self.known.name(rule["Name"]), named)]
        return await asyncio.gather(*(self._rule(rule, called) for rule in known))

    def _is_own(self, bus: str, name: str, wanted: set[str]) -> bool:
        own = bool(name) and (bus != DEFAULT_BUS or bool(self.known.config.namespace))
        return own or name in wanted

    async def _rule(self, answer: Mapping[str, Any], bus: str) -> StandingRule:
        called = answer["Name"]
        every = self._every(
            self.clients.events, "list_targets_by_rule", "Targets", f"rule '{called}'"
        )
        asked = every(Rule=called, EventBusName=bus)
        targets = await self._seen(f"rule {called}", "its targets", asked)
        return rule_of(self.known, answer, targets)

    # --- queues ---

    async def queues(self, wanted: Topology) -> tuple[StandingQueue, ...]:
        found = await asyncio.gather(*(self._queue(queue.name) for queue in wanted.queues))
        return tuple(queue for queue in found if queue is not None)

    async def _queue(self, name: str) -> StandingQueue | None:
        called = self.known.config.physical(name)
        resource, subject = f"queue '{called}'", f"queue {called}"
        ask = self._ask(self.clients.sqs, "get_queue_url", resource)
        there = await self._seen(subject, "it", ask(QueueName=called))
        if there is None:
            return None
        ask = self._ask(self.clients.sqs, "get_queue_attributes", resource)
        asked = ask(QueueUrl=there["QueueUrl"], AttributeNames=["All"])
        answer = await self._seen(subject, "its attributes", asked)
        if answer is None:
            return None
        self._arns[called] = answer["Attributes"]["QueueArn"]
        found = queue_of(self.known, answer["Attributes"])
        if found.encrypted is None:
            self.unseen.append(Unseen(subject, "whether it is encrypted", "SQS does not tell."))
        return found

    # --- tables ---

    async def tables(self, wanted: Topology) -> tuple[StandingTable, ...]:
        found = await asyncio.gather(*(self._table(table.name) for table in wanted.tables))
        return tuple(table for table in found if table is not None)

    async def _table(self, name: str) -> StandingTable | None:
        called = self.known.config.physical(name)
        dynamodb, resource, subject = self.clients.dynamodb, f"table '{called}'", f"table {called}"
        ask = self._ask(dynamodb, "describe_table", resource)
        there = await self._seen(subject, "it", ask(TableName=called))
        if there is None:
            return None
        ask = self._ask(dynamodb, "describe_time_to_live", resource)
        ttl = await self._seen(subject, "whether items expire", ask(TableName=called))
        found = table_of(
            self.known,
            there["Table"],
            ttl=None if ttl is None else ttl["TimeToLiveDescription"],
            recovery=await self._recovery(called, subject),
        )
        for index in found.indexes:
            if index.status is None:
                what = f"whether its index {index.name} is active"
                self.unseen.append(Unseen(subject, what, "DynamoDB does not tell."))
        return found

    async def _recovery(self, called: str, subject: str) -> bool | None:
        ask = self._ask(self.clients.dynamodb, "describe_continuous_backups", f"table '{called}'")
        answer = await self._seen(subject, "point-in-time recovery", ask(TableName=called))
        if answer is None:
            return None
        backups = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        return bool(backups.get("PointInTimeRecoveryStatus") == "ENABLED")

    # --- mappings ---

    async def mappings(
        self,
        queues: Sequence[StandingQueue],
        declared: Mapping[str, Mapping[str, Any]],
    ) -> tuple[StandingMapping, ...]:
        """What feeds the queues that are read, whoever made it, and what stacks have beside."""
        on_each = await asyncio.gather(*(self._fed(queue.name) for queue in queues))
        found = {answer["UUID"]: answer for answers in on_each for answer in answers}
        rest = await asyncio.gather(*map(self._mapping, sorted(declared.keys() - found.keys())))
        found |= {answer["UUID"]: answer for answer in rest if answer is not None}
        made = await asyncio.gather(
            *(self._of(answer, declared.get(id)) for id, answer in found.items())
        )
        return tuple(sorted(made, key=lambda each: (each.source, each.function, each.id)))

    async def _fed(self, queue: str) -> Sequence[Mapping[str, Any]]:
        called = self.known.config.physical(queue)
        every = self._every(
            self.functions, "list_event_source_mappings", "EventSourceMappings", f"queue '{called}'"
        )
        asked = every(EventSourceArn=self._arns[called])
        return await self._seen(f"queue {called}", "which functions it feeds", asked) or ()

    async def _mapping(self, id: str) -> Mapping[str, Any] | None:
        ask = self._ask(self.functions, "get_event_source_mapping", f"mapping '{id}'")
        return await self._seen(f"mapping {id}", "it", ask(UUID=id))

    async def _of(
        self, answer: Mapping[str, Any], declared: Mapping[str, Any] | None
    ) -> StandingMapping:
        called = ":".join(answer["FunctionArn"].split(":")[6:])
        ask = self._ask(self.functions, "get_function_configuration", f"function '{called}'")
        asked = ask(FunctionName=answer["FunctionArn"])
        function = await self._seen(f"function {called}", "its timeout", asked)
        return mapping_of(self.known, answer, function, declared)

    # --- what else there is ---

    async def beside(
        self, wanted: Topology, rules: Sequence[StandingRule]
    ) -> tuple[tuple[str, str], ...]:
        """What the namespace has and the topology does not; nothing is known of that without a
        namespace."""
        if not self.known.config.namespace:
            return ()
        physical = self.known.config.physical
        queues, tables = await asyncio.gather(self._queue_names(), self._table_names())
        named = {("queue", physical(queue.name)) for queue in wanted.queues}
        named |= {("table", physical(table.name)) for table in wanted.tables}
        found = {("queue", name) for name in queues} | {("table", name) for name in tables}
        found |= {("rule", physical(rule.name)) for rule in rules if not is_wanted(rule, wanted)}
        return tuple(sorted(found - named))

    async def _queue_names(self) -> list[str]:
        prefix = f"{self.known.config.namespace}-"
        every = self._every(self.clients.sqs, "list_queues", "QueueUrls", f"queues '{prefix}…'")
        asked = every(QueueNamePrefix=prefix, PaginationConfig={"PageSize": 1_000})
        urls = await self._seen(f"queues {prefix}…", "which others there are", asked) or []
        return [url.rpartition("/")[2] for url in urls]

    async def _table_names(self) -> list[str]:
        prefix = f"{self.known.config.namespace}-"
        every = self._every(self.clients.dynamodb, "list_tables", "TableNames", "tables")
        names = await self._seen(f"tables {prefix}…", "which others there are", every()) or []
        return [name for name in names if name.startswith(prefix)]

    # --- calls ---

    def _ask(self, client: Any, method: str, resource: str) -> Any:
        operation = client.meta.method_to_api_mapping[method]

        async def ask(**arguments: Any) -> Any:
            async with self._turns:
                with translated(operation, resource, place(client)):
                    return await getattr(client, method)(**arguments)

        return ask

    def _every(self, client: Any, method: str, key: str, resource: str) -> Any:
        """All entries of an answer in pages."""
        operation = client.meta.method_to_api_mapping[method]

        async def every(**arguments: Any) -> list[Any]:
            pages = client.get_paginator(method).paginate(**arguments)
            async with self._turns:
                with translated(operation, resource, place(client)):
                    return [each async for page in pages for each in page.get(key) or ()]

        return every

    async def _seen(self, subject: str, what: str, asked: Awaitable[T]) -> T | None:
        """The answer; nothing where something is not there, or not told, which is noted."""
        try:
            return await told(self.unseen, subject, what, asked)
        except NotProvisioned:
            return None


def is_wanted(rule: StandingRule, wanted: Topology) -> bool:
    return any((rule.bus, rule.name) == (each.bus, each.name) for each in wanted.rules)


async def told(unseen: list[Unseen], subject: str, what: str, asked: Awaitable[T]) -> T | None:
    """The answer; nothing where there is none, which is noted. Raises `NotProvisioned`."""
    try:
        return await asked
    except NotProvisioned:
        raise
    except CloudError as error:
        unseen.append(Unseen(subject, what, str(error)))
        return None
