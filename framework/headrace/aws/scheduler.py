"""Schedules on EventBridge Scheduler."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from headrace.aws.config import AwsConfig, place
from headrace.aws.faults import translated
from headrace.errors import CloudError, ConfigurationError, NotProvisioned
from headrace.ports import Clock, QueueEntry
from headrace.schedules import require_name, require_schedulable
from headrace.topology.model import dead_letter_queue

if TYPE_CHECKING:
    from types_aiobotocore_scheduler.client import EventBridgeSchedulerClient
    from types_aiobotocore_scheduler.type_defs import TargetTypeDef
    from types_aiobotocore_sqs.client import SQSClient

_LOCAL_ROLE: Final = "arn:aws:iam::000000000000:role/headrace-scheduler"
_ROLE: Final = re.compile(r"arn:aws(-[a-z]+)*:iam::\d{12}:role/[\w+=,.@/-]+")


class EventBridgeScheduler:
    """`headrace.ports.Scheduler` on EventBridge Scheduler.

    One method is one call, plus one `GetQueueUrl` at the first use of each queue. `client` opens
    the client when it is called for the first time.

    Schedules stand in the default group, under names that begin with the namespace. A group of
    their own would have to be made before the first one, by every service that never schedules
    as well, and a policy can name `schedule/default/<namespace>-*` just as easily.
    """

    def __init__(
        self,
        client: Callable[[], Awaitable[EventBridgeSchedulerClient]],
        sqs: SQSClient,
        config: AwsConfig,
        clock: Clock,
    ) -> None:
        self._client = client
        self._sqs = sqs
        self._config = config
        self._clock = clock
        self._queue_arns: dict[str, str] = {}

    async def schedule(self, name: str, at: datetime, queue: str, entry: QueueEntry) -> None:
        physical = self._config.physical(name)
        now, taken = self._clock.now(), len(physical) - len(name)
        require_schedulable(name, at, queue, entry, now=now, taken=taken)
        role = self._role()
        target = _target(await self._queue_arn(queue), role, entry)
        client = await self._client()
        try:
            with translated("CreateSchedule", f"schedule '{physical}'", place(client)):
                await client.create_schedule(
                    Name=physical,
                    ScheduleExpression=_expression(at),
                    ScheduleExpressionTimezone="UTC",
                    FlexibleTimeWindow={"Mode": "OFF"},
                    ActionAfterCompletion="DELETE",
                    Target=target,
                )
        except CloudError as error:
            # It stands already: an earlier call got through, and its answer was lost.
            if error.code != "ConflictException":
                raise

    async def cancel(self, name: str) -> None:
        physical = self._config.physical(name)
        require_name(name, "DeleteSchedule", len(physical) - len(name))
        client = await self._client()
        with (
            suppress(NotProvisioned),
            translated("DeleteSchedule", f"schedule '{physical}'", place(client)),
        ):
            await client.delete_schedule(Name=physical)

    def _role(self) -> str:
        """The role as which Scheduler sends. Raises `ConfigurationError` when AWS needs one and
        there is none, or what there is can be none."""
        role = self._config.scheduler_role
        if role is None and self._config.is_local("scheduler"):
            return _LOCAL_ROLE
        if role is None or not _ROLE.fullmatch(role):
            raise ConfigurationError(
                "EventBridge Scheduler sends as a role, and "
                f"{'none is set' if role is None else f'{role!r} is not the ARN of one'}: set "
                "HEADRACE_SCHEDULER_ROLE_ARN to a role that scheduler.amazonaws.com may assume and "
                "that may sqs:SendMessage, or name an emulator with AWS_ENDPOINT_URL."
            )
        return role

    async def _queue_arn(self, queue: str) -> str:
        if queue not in self._queue_arns:
            self._queue_arns[queue] = await self._look_up(self._config.physical(queue))
        return self._queue_arns[queue]

    async def _look_up(self, name: str) -> str:
        """Raises `NotProvisioned` for a queue that is not there: Scheduler itself looks only
        when it fires, and then nobody hears of it."""
        with translated("GetQueueUrl", f"queue '{name}'", place(self._sqs)):
            answer = await self._sqs.get_queue_url(QueueName=name)
        account = answer["QueueUrl"].split("/")[-2]
        meta = self._sqs.meta
        return f"arn:{meta.partition}:sqs:{meta.region_name}:{account}:{name}"


def _expression(at: datetime) -> str:
    """A time in whole seconds, rounded up, so that nothing comes early."""
    early = at.astimezone(UTC).replace(microsecond=0)
    whole = early + timedelta(seconds=at.microsecond > 0)
    return f"at({whole:%Y-%m-%dT%H:%M:%S})"


def _target(queue_arn: str, role: str, entry: QueueEntry) -> TargetTypeDef:
    target: TargetTypeDef = {"Arn": queue_arn, "RoleArn": role, "Input": entry.body}
    if entry.group_id is not None:
        target["SqsParameters"] = {"MessageGroupId": entry.group_id}
    if not queue_arn.endswith(".fifo"):
        # Of a standard queue it may be the dead-letter queue: Scheduler sends to no FIFO one.
        target["DeadLetterConfig"] = {"Arn": dead_letter_queue(queue_arn)}
    return target
