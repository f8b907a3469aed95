"""What the handlers of a service do on AWS: the permissions it needs, and no more.

Grants are as logical as the topology is: who deploys turns names into ARNs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from headrace.events import Command, MessageType, contract_of
from headrace.record import RELAY_INDEX
from headrace.saga.handling import sagas_of
from headrace.service import Handler, Service

from .model import dead_letter_queue


class Host(StrEnum):
    """Where a service runs. On Lambda the event source mapping receives and deletes, as the
    function's own role."""

    LAMBDA = "lambda"
    WORKER = "worker"


class Resource(StrEnum):
    """What a grant is for. A `STREAM` goes by the name of its table. A `SCHEDULE` is any whose
    name begins with the namespace; a `SCHEDULER_ROLE` is the one as which EventBridge Scheduler
    sends for the service of that name."""

    BUS = "bus"
    QUEUE = "queue"
    TABLE = "table"
    INDEX = "index"
    STREAM = "stream"
    SCHEDULE = "schedule"
    SCHEDULER_ROLE = "scheduler role"


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """IAM actions, in order, on one resource by its logical name (an index as `table/index`), and
    the reason, as a part of a sentence."""

    resource: Resource
    name: str
    actions: tuple[str, ...]
    why: str


def access(service: Service, host: Host = Host.WORKER) -> tuple[Grant, ...]:
    """What a service needs on a host, for all that its handlers may do: one grant for a resource,
    in order."""
    grants = sorted({*_queues(service, host), *_messages(service), *_store(service, host)})
    return tuple(
        _joined(list(same)) for _, same in groupby(grants, key=lambda g: (g.resource, g.name))
    )


def _joined(grants: Sequence[Grant]) -> Grant:
    actions = sorted({action for grant in grants for action in grant.actions})
    why = " and ".join(dict.fromkeys(grant.why for grant in grants))
    return Grant(grants[0].resource, grants[0].name, tuple(actions), why)


def schedules_to(service: Service) -> tuple[str, ...]:
    """The queues into which a service may schedule something: those of the commands that its
    transactions send, as any of them can be sent later, and its own for the timers of its sagas."""
    later = {*service.emits, *_later(service)}
    return tuple(_owners(cls for cls in later if issubclass(cls, Command)))


def _later(service: Service) -> Iterator[MessageType]:
    sagas = sagas_of(service)
    for handler in service.handlers:
        if handler.name in sagas:
            # The commands of its steps are sent at once.
            yield sagas[handler.name].signals.timer
        elif handler.uses_transaction:
            yield from handler.emits


# --- queues and the bus ----------------------------------------------------------------

_TAKES = ("sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueUrl")
_SENDS = ("sqs:GetQueueUrl", "sqs:SendMessage")


def _queues(service: Service, host: Host) -> Iterator[Grant]:
    polled = ("sqs:GetQueueAttributes",) if host is Host.LAMBDA else ()
    takes = tuple(sorted((*_TAKES, *polled, "sqs:ReceiveMessage")))
    for queue in service.queues:
        yield Grant(Resource.QUEUE, queue, takes, "takes its messages")
        letters = dead_letter_queue(queue)
        yield Grant(Resource.QUEUE, letters, _SENDS, "writes dead letters")


def _messages(service: Service) -> Iterator[Grant]:
    emitted = {cls for handler in service.handlers for cls in handler.emits} | service.emits
    if any(_is_event(cls) for cls in emitted):
        bus = ("events:DescribeEventBus", "events:PutEvents")
        yield Grant(Resource.BUS, service.bus, bus, "publishes events")
    for owner in _owners(emitted):
        yield Grant(Resource.QUEUE, owner, _SENDS, "sends commands")
    if schedules_to(service):
        schedules = ("scheduler:CreateSchedule", "scheduler:DeleteSchedule")
        yield Grant(Resource.SCHEDULE, "", schedules, "sends commands later")
        role = ("iam:PassRole",)
        yield Grant(Resource.SCHEDULER_ROLE, service.name, role, "sends commands later")


def _is_event(cls: MessageType) -> bool:
    return contract_of(cls).source is not None


def _owners(types: Iterable[MessageType]) -> list[str]:
    return sorted({owner for cls in types if (owner := contract_of(cls).owner) is not None})


# --- the table ---------------------------------------------------------------------------


def _store(service: Service, host: Host) -> Iterator[Grant]:
    if service.table is None:
        return
    actions = {action for handler in service.handlers for action in _of(service, handler)}
    if service.emits:
        actions |= _RECORDS | _SENT | _ENTITIES
    if actions:
        table = tuple(sorted(f"dynamodb:{action}" for action in actions))
        yield Grant(Resource.TABLE, service.table, table, "keeps entities and inbox records")
    if service.emits:
        index = f"{service.table}/{RELAY_INDEX}"
        yield Grant(Resource.INDEX, index, ("dynamodb:Query",), "relays what is not sent yet")
        if host is Host.LAMBDA:
            yield Grant(Resource.STREAM, service.table, _STREAM, "relays what is not sent yet")


_STREAM = (
    "dynamodb:DescribeStream",
    "dynamodb:GetRecords",
    "dynamodb:GetShardIterator",
    "dynamodb:ListStreams",
)
_RECORDS = frozenset({"BatchGetItem", "PutItem"})
"""An inbox record is put, and read when a handler fails, as its effects may stand already."""
_SENT = frozenset({"BatchWriteItem"})
"""One that had something to send is marked as done, with others."""
_LEASES = frozenset({"UpdateItem"})
_PARKING = frozenset({"BatchGetItem", "ConditionCheckItem", "PutItem", "UpdateItem"})
"""Groups are freed by an operator, who has a role of their own."""
_ENTITIES = frozenset(
    {"BatchGetItem", "ConditionCheckItem", "DeleteItem", "PutItem", "Query", "UpdateItem"}
)
"""What a handler asks of its `Transaction` shows only when it runs. A transaction of DynamoDB is
allowed by what it consists of: there is no action for TransactWriteItems."""
_SAGAS = frozenset({"BatchGetItem", "PutItem"})


def _of(service: Service, handler: Handler) -> frozenset[str]:
    kept = _RECORDS | (_SENT if handler.emits else frozenset())
    records = frozenset() if handler.idempotent else kept
    leases = _LEASES if handler.lease is not None else frozenset()
    parking = _PARKING if handler.park else frozenset()
    return records | leases | parking | _state(service, handler)


def _state(service: Service, handler: Handler) -> frozenset[str]:
    if handler.name in sagas_of(service):
        return _SAGAS
    return _ENTITIES if handler.uses_transaction else frozenset()
