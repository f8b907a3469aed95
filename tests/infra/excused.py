"""What is granted although no port was seen to use it, and why. A line that is not needed any
more fails the tests, as does a grant that has none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from headrace.service import Service
from headrace.testing.recording import Call
from headrace.topology.access import Host, Resource

Reasons: TypeAlias = Mapping[Call, str]

POLLER: Final = "The poller of Lambda does it, as the role of the function."
TRANSACTION: Final = (
    "A handler may ask it of its `Transaction`; which of these it does shows only when it runs."
)
LATER: Final = "A timer of its saga that is more than 15 minutes ahead waits in Scheduler."
SOONER: Final = (
    "What is scheduled within 15 minutes waits in the queue itself, and so does what is sent so "
    "late, after failures, that no more is left."
)

_POLLED: Final = ("sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage")
_STREAMED: Final = (
    *("dynamodb:DescribeStream", "dynamodb:GetRecords"),
    *("dynamodb:GetShardIterator", "dynamodb:ListStreams"),
)


def excused(service: Service, host: Host) -> dict[Call, str]:
    """What no handler of this service was seen to do, with the reason for each."""
    reasons = dict(_OF.get(service.name, {}))
    if host is Host.LAMBDA:
        reasons |= dict.fromkeys(_of_poller(service), POLLER)
    return reasons


def _of_poller(service: Service) -> Iterator[Call]:
    for queue in service.queues:
        yield from (Call(action, (Resource.QUEUE, queue)) for action in _POLLED)
    if service.emits:
        yield from (Call(action, (Resource.STREAM, str(service.table))) for action in _STREAMED)


def _unasked(table: str, *actions: str) -> Reasons:
    calls = (Call(f"dynamodb:{action}", (Resource.TABLE, table)) for action in actions)
    return dict.fromkeys(calls, TRANSACTION)


def _never_later(service: str) -> Reasons:
    schedules = ("scheduler:CreateSchedule", "scheduler:DeleteSchedule")
    calls = [Call(action, (Resource.SCHEDULE, "*")) for action in schedules]
    return dict.fromkeys([*calls, Call("iam:PassRole", (Resource.SCHEDULER_ROLE, service))], LATER)


def _never_sooner(queue: str) -> Reasons:
    return {Call("sqs:SendMessage", (Resource.QUEUE, queue)): SOONER}


_OF: Final[Mapping[str, Reasons]] = {
    "order": {
        **_unasked("order", "ConditionCheckItem", "DeleteItem", "Query"),
        # SHOP_ANSWER_SECONDS may be more than that.
        **_never_later("order"),
    },
    "inventory": {
        **_unasked("inventory", "ConditionCheckItem", "DeleteItem", "Query", "UpdateItem"),
        **_never_sooner("inventory"),
    },
    "notification": _unasked("notification", "ConditionCheckItem", "DeleteItem", "Query"),
    # Of the small services.
    "sluice": _unasked("sluice", "ConditionCheckItem", "DeleteItem", "Query", "UpdateItem"),
    "dam": _never_sooner("dam"),
}
