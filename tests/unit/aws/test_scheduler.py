"""What the adapter asks EventBridge Scheduler for, and what it makes of the answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from headrace.aws.client import open_clients
from headrace.aws.config import SERVICES, AwsConfig
from headrace.aws.scheduler import EventBridgeScheduler
from headrace.errors import ConfigurationError, NotProvisioned, Refused, Throttled
from headrace.ports import QueueEntry

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 21, 12, tzinfo=UTC)
ROLE = "arn:aws:iam::123456789012:role/shop/sends-later"
EMULATED = dict.fromkeys(SERVICES, "http://127.0.0.1:4566")
ENTRY = QueueEntry("due")


class StillClock:
    def now(self) -> datetime:
        return NOW


class Answers:
    """Stands in for both botocore clients: keeps what it is asked, and answers or raises."""

    def __init__(self, code: str = "", status: int = 400) -> None:
        self.asked: list[dict[str, Any]] = []
        self.opened = 0
        self._error = client_error(code, status) if code else None
        self.meta = SimpleNamespace(
            region_name="eu-west-1",
            partition="aws",
            endpoint_url="https://scheduler.eu-west-1.amazonaws.com",
        )

    async def open(self) -> Any:
        self.opened += 1
        return self

    async def get_queue_url(self, QueueName: str) -> dict[str, str]:  # noqa: N803  botocore's
        self.asked.append({"QueueName": QueueName})
        return {"QueueUrl": f"https://sqs.eu-west-1.amazonaws.com/123456789012/{QueueName}"}

    async def create_schedule(self, **request: Any) -> None:
        await self._answer(request)

    async def delete_schedule(self, **request: Any) -> None:
        await self._answer(request)

    async def _answer(self, request: dict[str, Any]) -> None:
        self.asked.append(request)
        if self._error:
            raise self._error


def client_error(code: str, status: int) -> ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": "said AWS"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "CreateSchedule")


def scheduler(answers: Answers, **config: Any) -> EventBridgeScheduler:
    sqs: Any = answers
    settings = AwsConfig(**{"scheduler_role": ROLE} | config)
    return EventBridgeScheduler(answers.open, sqs, settings, StillClock())


async def test_a_schedule_is_one_that_sends_once_and_deletes_itself() -> None:
    aws = Answers()

    await scheduler(aws, namespace="dev").schedule("saga-1", LATER, "orders", ENTRY)

    assert aws.asked == [
        {"QueueName": "dev-orders"},
        {
            "Name": "dev-saga-1",
            "ScheduleExpression": "at(2026-11-21T12:00:00)",
            "ScheduleExpressionTimezone": "UTC",
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "ActionAfterCompletion": "DELETE",
            "Target": {
                "Arn": "arn:aws:sqs:eu-west-1:123456789012:dev-orders",
                "RoleArn": ROLE,
                "Input": "due",
                "DeadLetterConfig": {"Arn": "arn:aws:sqs:eu-west-1:123456789012:dev-orders-dlq"},
            },
        },
    ]


async def test_a_group_is_given_to_a_fifo_queue() -> None:
    aws = Answers()

    await scheduler(aws).schedule("s", LATER, "orders.fifo", QueueEntry("due", group_id="g"))

    assert aws.asked[-1]["Target"]["SqsParameters"] == {"MessageGroupId": "g"}


async def test_the_queue_is_looked_up_once() -> None:
    aws = Answers()
    port = scheduler(aws)

    await port.schedule("a", LATER, "orders", ENTRY)
    await port.schedule("b", LATER, "orders", ENTRY)

    assert [request for request in aws.asked if "QueueName" in request] == [{"QueueName": "orders"}]


@pytest.mark.parametrize(
    ("at", "expression"),
    [
        (LATER + timedelta(microseconds=1), "at(2026-11-21T12:00:01)"),
        (datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "at(2027-01-01T00:00:00)"),
        (LATER.astimezone(timezone(timedelta(hours=-5))), "at(2026-11-21T12:00:00)"),
    ],
)
async def test_times_are_whole_seconds_in_utc_and_never_early(
    at: datetime, expression: str
) -> None:
    aws = Answers()

    await scheduler(aws).schedule("s", at, "orders", ENTRY)

    assert aws.asked[-1]["ScheduleExpression"] == expression


async def test_a_schedule_that_stands_already_is_success() -> None:
    aws = Answers("ConflictException", 409)

    await scheduler(aws).schedule("s", LATER, "orders", ENTRY)

    assert aws.asked[-1]["Name"] == "s"


async def test_a_schedule_in_the_middle_of_a_change_is_to_be_cancelled_again() -> None:
    with pytest.raises(Throttled, match="DeleteSchedule on the schedule 's'"):
        await scheduler(Answers("ConflictException", 409)).cancel("s")


async def test_a_schedule_that_is_not_there_is_cancelled() -> None:
    aws = Answers("ResourceNotFoundException", 404)

    await scheduler(aws, namespace="dev").cancel("s")

    assert aws.asked == [{"Name": "dev-s"}]


async def test_too_many_schedules_are_to_be_tried_again() -> None:
    with pytest.raises(Throttled, match="CreateSchedule on the schedule 's' in eu-west-1"):
        await scheduler(Answers("ServiceQuotaExceededException", 402)).schedule(
            "s", LATER, "orders", ENTRY
        )


async def test_what_aws_refuses_is_refused() -> None:
    with pytest.raises(Refused, match="said AWS"):
        await scheduler(Answers("ValidationException")).schedule("s", LATER, "orders", ENTRY)


@pytest.mark.parametrize("role", [None, "sends-later", "arn:aws:iam::12:role/x", "arn:aws:s3:::x"])
async def test_aws_needs_the_arn_of_a_role_and_is_not_called_without(role: str | None) -> None:
    aws = Answers()

    with pytest.raises(ConfigurationError, match="set HEADRACE_SCHEDULER_ROLE_ARN"):
        await scheduler(aws, scheduler_role=role).schedule("s", LATER, "orders", ENTRY)

    assert (aws.asked, aws.opened) == ([], 0)


async def test_an_emulator_needs_no_role() -> None:
    aws = Answers()

    await scheduler(aws, scheduler_role=None, endpoints=EMULATED).schedule(
        "s", LATER, "orders", ENTRY
    )

    assert aws.asked[-1]["Target"]["RoleArn"].endswith(":role/headrace-scheduler")


async def test_cancelling_needs_no_role() -> None:
    aws = Answers()

    await scheduler(aws, scheduler_role=None).cancel("s")

    assert aws.asked == [{"Name": "s"}]


async def test_the_namespace_takes_room_from_the_name() -> None:
    port = scheduler(Answers(), namespace="n" * 31)

    await port.schedule("x" * 32, LATER, "orders", ENTRY)
    with pytest.raises(Refused, match="1 to 32 characters"):
        await port.schedule("x" * 33, LATER, "orders", ENTRY)


async def test_a_queue_that_is_not_there_is_not_scheduled_for() -> None:
    aws = Answers()

    async def get_queue_url(QueueName: str) -> dict[str, str]:  # noqa: N803  botocore's
        raise client_error("QueueDoesNotExist", 400)

    aws.get_queue_url = get_queue_url  # type: ignore[method-assign]  # the queue is gone
    with pytest.raises(NotProvisioned, match="queue 'orders' does not exist"):
        await scheduler(aws).schedule("s", LATER, "orders", ENTRY)

    assert aws.asked == []


async def test_the_client_is_opened_by_the_first_who_asks_and_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []
    create = AioSession.create_client

    def noted(self: AioSession, service: str, **settings: Any) -> Any:
        made.append(service)
        return create(self, service, **settings)

    monkeypatch.setattr(AioSession, "create_client", noted)
    async with open_clients(AwsConfig(endpoints=EMULATED)) as clients:
        assert made == ["sqs", "events", "dynamodb"]

        first, second = await clients.scheduler(), await clients.scheduler()

        assert first is second
        assert first.meta.endpoint_url == EMULATED["scheduler"]
        assert made == ["sqs", "events", "dynamodb", "scheduler"]
